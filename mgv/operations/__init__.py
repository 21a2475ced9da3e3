"""Operations: what a workspace takes, lacks and measures."""
