"""Language models: a causal language model and its tokenizer, by `pretrained`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from mgv.config import Quantization
from mgv.errors import ConfigError, WeightsError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_language_model(
    pretrained: str,
    device: str = "auto",
    *,
    dtype: str = "auto",
    quantization: Quantization = "none",
    device_map: str | None = None,
) -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer.

    `starter` is SmolLM2-135M-Instruct, `random` a tiny seeded Llama over bytes, else a folder or hub id anything
    AutoModelForCausalLM takes. `dtype` is one of DTYPES; 8 and 4 bit need CUDA; `device_map`
    ("auto", "balanced") spreads the layers over several GPUs. Attention runs by SDPA.
    Raises WeightsError when the weights are not at hand.
    """
    from mgv.encoders.devices import choose_device

    if dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    place = choose_device(device)
    options = weights_options(quantization, device_map, place)
    if dtype == "auto" and place == "cpu" and device_map is None:
        dtype = "float32"  # without bfloat16 units, a CPU is many times slower in it
    if pretrained == "random":
        import torch

        model, tokenizer = random_language_model()
        return model.to(place, None if dtype == "auto" else getattr(torch, dtype)).eval(), tokenizer
    from transformers import AutoModelForCausalLM

    where = find_language_model(pretrained)
    options |= {"dtype": dtype, "attn_implementation": "sdpa"}
    try:
        tokenizer = load_tokenizer(where)
        model, info = AutoModelForCausalLM.from_pretrained(
            where, output_loading_info=True, **options
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise WeightsError(f"language model {pretrained!r} cannot be loaded: {first}") from error
    if missing := sorted(info["missing_keys"]):
        raise WeightsError(
            f"language model {pretrained!r}: {len(missing)} weights are missing: {', '.join(missing[:3])}"
        )
    return (model if "device_map" in options else model.to(place)).eval(), tokenizer


def find_language_model(pretrained: str) -> str:
    """The folder or hub id that transformers reads."""
    if pretrained != "starter":
        if pretrained.startswith(("/", ".", "~")) and not Path(pretrained).is_dir():
            raise WeightsError(
                f"language model {pretrained!r}: no such folder; name a folder or a hub id"
            )
        return pretrained
    from mgv.starter.weights import language_model_dir

    return str(language_model_dir())


def weights_options(
    quantization: Quantization, device_map: str | None, place: str
) -> dict[str, Any]:
    """Arguments of transformers' `from_pretrained` for weights that are quantised (on the device `place`) or spread
    over several GPUs."""
    import torch

    if quantization != "none":
        quantised = quantization_config(quantization)
        return {
            "quantization_config": quantised,
            "device_map": device_map or {"": torch.device(place).index or 0},
        }
    return {"device_map": device_map} if device_map else {}


def quantization_config(quantization: Quantization) -> Any:
    """bitsandbytes 8 bit, or 4 bit (NF4, double quantisation, bf16 arithmetic). Raises ConfigError without CUDA."""
    import torch

    if quantization not in get_args(Quantization):
        raise ConfigError(
            f"quantization {quantization!r} is none of {', '.join(get_args(Quantization))}"
        )
    if not torch.cuda.is_available():
        raise ConfigError(
            f"quantization {quantization}: needs a CUDA GPU, none is here; use `none`"
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(f"quantization {quantization}: needs `pip install bitsandbytes`")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load_tokenizer(where: str) -> Any:
    """The tokenizer of a folder or hub id.

    A folder with nothing but SentencePiece's `tokenizer.model` (Vicuna, LLaMA-VID, Video-LLaVA) is read by
    sentencepiece_tokenizer: transformers 5 drops the pieces' scores and splits runs of spaces another way.
    """
    from transformers import AutoTokenizer

    model_file = Path(where) / "tokenizer.model"
    if model_file.is_file() and not (Path(where) / "tokenizer.json").is_file():
        return sentencepiece_tokenizer(model_file)
    return AutoTokenizer.from_pretrained(where)


def sentencepiece_tokenizer(model_file: Path) -> Any:
    """A fast Llama tokenizer with the ids of SentencePiece: a space ahead of every text, merges by score."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise WeightsError(f"{model_file}: reading it needs `pip install sentencepiece`") from error
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.tokenization_utils_base import generate_merges

    pieces = SentencePieceProcessor(model_file=str(model_file))
    names = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    vocab = {name: i for i, name in enumerate(names)}
    merges = generate_merges(vocab, {name: pieces.get_score(i) for i, name in enumerate(names)})
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def random_language_model(seed: int = 0, **overrides: Any) -> tuple[Any, Any]:
    """A tiny seeded Llama over bytes, with its tokenizer: every path without a download."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **(sizes | overrides),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return model.eval(), tokenizer


def byte_tokenizer() -> Any:
    """256 bytes and <unk>, <s>, </s>."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<unk>",
    )


def load_question_tokenizer(pretrained: str = "starter") -> Any:
    """The tokenizer of a Q-Former: the words of bert-base-uncased (`starter` has them too) and [DEC]."""
    from transformers import AutoTokenizer, BertTokenizer

    if pretrained == "random":
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = "abcdefghijklmnopqrstuvwxyz?"
        words = [*marks, *letters, *(f"##{letter}" for letter in letters[:-1])]
        tokenizer: Any = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    elif pretrained == "starter":
        from mgv.starter.weights import text_model_dir

        tokenizer = AutoTokenizer.from_pretrained(text_model_dir())
    else:
        tokenizer = AutoTokenizer.from_pretrained(pretrained)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer
