"""How a bundle is used: the commands and the Python of its card, each of which runs in the bundle's folder as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

FORMS = {"relate": "<e1>Ivo</e1> founded <e2>Brine AG</e2>.", "generate": "I like this book."}
"""Texts to ask about, for tasks whose texts are of one form."""
CHINESE, ENGLISH = "这家店很好。", "It works well."
QUESTION = ("Who lives in Turin?", "Mara lives in Oslo, and Ivo in Turin.")
PAIR = ("Where do I send it?", "Returning an order")
CHOICES = ("Bert opened the door. He", "went in.", "rained.")
SENTENCES = "Shops close at eight. A new rule would keep them open."
ROUTES = {"pretraining": "fill-mask", "answer": "qa", "tag": "ner", "choose": ""}
"""Where the service is asked, other than at `/predict`; the latter takes two texts at most."""
LIBRARY = "adapter_config.json"


def kind_of(config: Mapping[str, Any]) -> str:
    """What transformers' class for the model is called after `Bert` or `ModernBert`, such as `ForMaskedLM`."""
    name = str((config.get("architectures") or ["Model"])[0])
    return name.removeprefix("Modern").removeprefix("Bert")


def settings_of(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The task's settings that a bundle keeps; nothing where it has none."""
    return meta.get("task_config") or {}


def makes_vectors(meta: Mapping[str, Any]) -> bool:
    """Whether the model gives each text a vector."""
    return meta.get("task") == "match" and settings_of(meta).get("mode") == "bi"


def question(meta: Mapping[str, Any], *, chinese: bool = False) -> tuple[str, ...]:
    """Texts that the model can be asked about: one, or a pair, or a text and its choices.

    Args:
        meta: what `bertsmith.json` says.
        chinese: where the form leaves it open, ask in Chinese.
    """
    task, settings = meta.get("task"), settings_of(meta)
    plain = CHINESE if chinese else ENGLISH
    if task == "pretraining":
        return (plain[:2] + "[MASK]" + plain[3:] if chinese else "It [MASK] well.",)
    if task == "answer":
        return QUESTION
    if task == "choose":
        return CHOICES
    if task == "generate" and settings.get("mode") == "extract":
        return (SENTENCES,)
    if task in FORMS:
        return (FORMS[task],)
    if settings.get("pair") or (task == "match" and not makes_vectors(meta)):
        return PAIR
    return (plain,)


def commands(meta: Mapping[str, Any], *, chinese: bool = False) -> list[tuple[str, str]]:
    """Language and content of the blocks that show the bundle in bertsmith: command, Python, service, request.

    Args:
        meta: what `bertsmith.json` says.
        chinese: ask in Chinese where the form leaves it open.
    """
    if meta.get("task") is None:
        return []
    texts = question(meta, chinese=chinese)
    typed = " ".join(f'"{text}"' for text in texts)
    engine = " --engine onnx" if "onnx" in meta else ""
    loaded = 'bertsmith.load("."' + (', engine="onnx")' if engine else ")")
    asked = _literal(texts[0]) if len(texts) == 1 else f"({', '.join(map(_literal, texts))})"
    call = f"ask.fill_mask([{asked}], top_k=3)" if meta["task"] == "pretraining" else f"ask({asked})"
    blocks = [
        ("bash", f"bertsmith predict . {typed}{engine}"),
        ("python", f"import bertsmith\n\nask = {loaded}\nprint({call})"),
    ]
    route = "embed" if makes_vectors(meta) else ROUTES.get(str(meta["task"]), "predict")
    if route:
        inputs: Any = texts[0] if len(texts) == 1 else list(texts)
        body = dict(zip(("question", "context"), texts, strict=False)) if route == "qa" else {"inputs": inputs}
        sent = json.dumps(body, ensure_ascii=False)
        blocks.append(("bash", f"bertsmith serve model=. --port 8765{engine}"))
        blocks.append(("bash", f"curl localhost:8765/{route} -H 'content-type: application/json' -d '{sent}'"))
    return blocks


def in_transformers(config: Mapping[str, Any], meta: Mapping[str, Any], *, chinese: bool = False) -> tuple[str, str]:
    """What to know about the bundle in transformers, and Python that opens it there; empty where there is none.

    Args:
        config: what `config.json` says.
        meta: what `bertsmith.json` says.
        chinese: ask in Chinese where the form leaves it open.
    """
    task, settings, kind = meta.get("task"), settings_of(meta), kind_of(config)
    if "peft" in meta:
        return _in_peft(config, meta, question(meta, chinese=chinese))
    opens = f"Opens as `{(config.get('architectures') or ['BertModel'])[0]}`, without remote code."
    if task == "generate" and settings.get("mode") != "extract":
        return (
            f"{opens} But the mask under which it writes, and the layers of a decoder where it has them, are not in "
            "that class: write with bertsmith.",
            "",
        )
    texts = [_literal(text) for text in _written(meta, question(meta, chinese=chinese))]
    cut = '"only_second"' if task == "answer" else "True"
    how = f'truncation={cut}, max_length={_length(config, meta)}, return_tensors="pt")'
    lines = [f"inputs = tokenizer({', '.join(texts)}, {how}"]
    if task == "choose":
        lines = [
            f"choices = [{', '.join(texts[1:])}]",
            f"inputs = tokenizer([{texts[0]}] * len(choices), choices, padding=True, {how}",
            "inputs = {name: values[None] for name, values in inputs.items()}",
        ]
    auto = "AutoModel" + kind.removeprefix("Model")
    code = [
        "import torch",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        f'model = {auto}.from_pretrained(".").eval()',
        *lines,
        "with torch.no_grad():",
        "    outputs = model(**inputs)",
        *_reading(kind, meta),
    ]
    return f"{opens} {_note(kind, meta)}".strip(), "\n".join(code)


def _length(config: Mapping[str, Any], meta: Mapping[str, Any]) -> int:
    """The longest sequence that the model is meant for, in pieces."""
    most: int = config.get("max_position_embeddings", 512)
    return min(settings_of(meta).get("max_length") or most, most)


def _written(meta: Mapping[str, Any], texts: tuple[str, ...]) -> tuple[str, ...]:
    """Texts as the model reads them, with what bertsmith puts in by itself."""
    task, settings = meta.get("task"), settings_of(meta)
    if task == "generate":
        return (texts[0].replace(". ", ". [SEP] "),)
    if task == "relate":
        one, two = (settings.get("marks") or ["@", "#"])[:2]
        return (f"{one} Ivo {one} founded {two} Brine AG {two}.",)
    return ((settings.get("prompt") or "") + texts[0], *texts[1:])


def _note(kind: str, meta: Mapping[str, Any]) -> str:
    """What is otherwise there than in bertsmith."""
    task, settings = meta.get("task"), settings_of(meta)
    if makes_vectors(meta):
        return "`SentenceTransformer('.')` of sentence-transformers opens it too."
    if kind == "Model" and task is not None:
        return "That class holds the encoder; what reads the answer from it is in the file, but only bertsmith has it."
    if kind == "ForTokenClassification" and task == "generate":
        return "A sentence is judged at the `[SEP]` after it."
    if kind == "ForTokenClassification":
        crf = " The scores of tags that follow each other (CRF) are in the file, but not in that class."
        return (
            "It gives a tag to each piece; bertsmith takes that of each word's first piece, allows legal sequences "
            "only, and reads long texts in windows." + crf * (settings.get("head") == "crf")
        )
    if task == "relate":
        return "Both stretches must be marked as in the example, which bertsmith does by itself."
    if settings.get("multi_label"):
        return "A label is given from its probability in `task_config.thresholds` of `bertsmith.json`, else from 0.5."
    if settings.get("turns"):
        return "The turns of a dialogue stand one after the other, with `[SEP]` between them."
    return ""


def _reading(kind: str, meta: Mapping[str, Any]) -> list[str]:
    """The lines that turn `outputs` into something to look at."""
    settings = settings_of(meta)
    if makes_vectors(meta):
        vectors = (
            ["vectors = outputs.last_hidden_state[:, 0]"]
            if settings.get("pooling") == "cls"
            else [
                "mask = inputs.attention_mask[..., None]",
                "vectors = (outputs.last_hidden_state * mask).sum(1) / mask.sum(1)",
            ]
        )
        unit = ["vectors = torch.nn.functional.normalize(vectors)"] if settings.get("normalize", True) else []
        return [*vectors, *unit, "print(vectors.shape)"]
    if kind == "Model":
        return ["print(outputs.last_hidden_state.shape)"]
    if kind == "ForQuestionAnswering":
        return [
            "start, end = int(outputs.start_logits.argmax()), int(outputs.end_logits.argmax())",
            "print(tokenizer.decode(inputs.input_ids[0, start : end + 1]))",
        ]
    if kind in ("ForMaskedLM", "ForPreTraining"):
        logits = "prediction_logits" if kind == "ForPreTraining" else "logits"
        return [
            f"logits = outputs.{logits}[inputs.input_ids == tokenizer.mask_token_id]",
            "print(tokenizer.convert_ids_to_tokens(logits[0].topk(3).indices.tolist()))",
        ]
    shown = {
        "ForMultipleChoice": "print(choices[int(outputs.logits.argmax())])",
        "ForNextSentencePrediction": "print(outputs.logits.softmax(-1))",
        "ForTokenClassification": "print([model.config.id2label[i] for i in outputs.logits[0].argmax(-1).tolist()])",
    }
    if kind in shown:
        return [shown[kind]]
    if settings.get("regression"):
        return ["print(outputs.logits[0, 0].item())"]
    chances = "sigmoid()" if settings.get("multi_label") else "softmax(-1)"
    return [
        f"chances = outputs.logits.{chances}[0].tolist()",
        "print({model.config.id2label[i]: chance for i, chance in enumerate(chances)})",
    ]


def _in_peft(config: Mapping[str, Any], meta: Mapping[str, Any], texts: tuple[str, ...]) -> tuple[str, str]:
    """As `in_transformers`, of a small part: by the peft library where it knows the method."""
    method = (meta["peft"].get("settings") or {}).get("method")
    if LIBRARY not in meta.get("files", {}):
        merge = (
            "`bertsmith convert . ../merged --merge` works it into a plain model, which transformers opens."
            if method in ("lora", "adalora", "bitfit")
            else "No class of transformers computes the same: use bertsmith."
        )
        return f"This is a small part ({method}) of a model, and the peft library has no such form. {merge}", ""
    auto = "AutoModel" + kind_of(config).removeprefix("Model")
    base = (meta.get("base") or {}).get("name", "BASE")
    labels = len(config.get("id2label") or {}) or len(meta.get("labels", [])) or 1
    code = "\n".join(
        [
            "import torch",
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{base}")',
            f'model = {auto}.from_pretrained("{base}", num_labels={labels})',
            'model = PeftModel.from_pretrained(model, ".").eval()',
            f"inputs = tokenizer({', '.join(map(_literal, texts))}, truncation=True, "
            f'max_length={_length(config, meta)}, return_tensors="pt")',
            "with torch.no_grad():",
            "    outputs = model(**inputs)",
            "print(outputs.logits.softmax(-1))",
        ]
    )
    where = "" if base != "BASE" else " `BASE` is the folder of the model that it was trained on."
    return f"The peft library opens it, on its base.{where}", code


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
