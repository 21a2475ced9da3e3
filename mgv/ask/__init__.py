"""Ask: a question → moments → an answer whose citations exist, with the receipt that proves it."""
