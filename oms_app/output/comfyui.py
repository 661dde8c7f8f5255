"""The settings in a graph of ComfyUI: its nodes are followed back from the picture to the sampler and its inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

Graph = Mapping[str, Mapping[str, Any]]
MAX_NODES = 5_000
MAX_VISITS = 2_000  # nodes that one search may pass through
TEXTS = ("text", "text_g", "text_l", "string", "value", "prompt", "wildcard_text", "populated_text", "Text", "clip_l")
NUMBERS = ("value", "seed", "noise_seed", "int", "float", "number", "Number", "Value", "width", "steps", "cfg")
# Inputs of a sampler, and the node that has them if it is SamplerCustomAdvanced, by its input.
PARTS = {"noise": ("noise_seed",), "guider": ("positive", "negative", "conditioning", "cfg", "model"),
         "sampler": ("sampler_name",), "sigmas": ("steps", "scheduler", "denoise", "model")}  # fmt: skip
# The widgets of a node as the editor stores them, in their order.
WIDGETS = {
    "KSampler": ("seed", None, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", None, "steps", "cfg", "sampler_name", "scheduler", "start_at_step"),
    "CLIPTextEncode": ("text",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "RandomNoise": ("noise_seed", None),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "CFGGuider": ("cfg",),
}


def read_graph(content: Any) -> dict[str, Any]:
    """What a graph says, by names of ComfyUI: positive, negative, seed, steps, cfg, sampler_name, scheduler, denoise,
    width, height, ckpt_name; loras, as pairs of name and strength; samplers, how many there are.

    content: parsed JSON, the chunk `prompt` or the chunk `workflow`. Raises ValueError if it has no sampler.
    """
    graph = _graph(content)
    samplers = [name for name in _from_outputs(graph) if _is_sampler(graph[name])]
    samplers += [name for name in graph if name not in samplers and _is_sampler(graph[name])]
    if not samplers:
        raise ValueError("its graph has no sampler")
    first = next((name for name in samplers if _begins(graph, name)), samplers[0])
    inputs = _gathered(graph, first)
    found: dict[str, Any] = {"samplers": len(samplers)}
    for name in ("seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"):
        value = _number(graph, inputs[name]) if name in inputs else None
        if value is not None:
            found["seed" if name == "noise_seed" else name] = value
    links = {"positive": inputs.get("positive", inputs.get("conditioning")), "negative": inputs.get("negative")}
    for side, link in links.items():
        found[side] = "\n".join(dict.fromkeys(_texts(graph, link, side)))
    for node in _upstream(graph, inputs.get("latent_image"), stop=_is_sampler):
        size = [_number(graph, graph[node]["inputs"].get(side)) for side in ("width", "height")]
        if None not in size:
            found["width"], found["height"] = size
            break
    loras = []
    for node in _upstream(graph, inputs.get("model")):
        has = graph[node]["inputs"]
        if isinstance(has.get("lora_name"), str):
            loras.append((has["lora_name"], _number(graph, has.get("strength_model"))))
        name = has.get("ckpt_name") or has.get("unet_name")
        if isinstance(name, str):
            found.setdefault("ckpt_name", name)
    return found | {"loras": loras}


def _graph(content: Any) -> Graph:
    """Nodes by id, each with `class_type` and `inputs`; a link is [id, output]."""
    if isinstance(content, Mapping) and isinstance(content.get("nodes"), list):
        content = _from_editor(content)
    if not isinstance(content, Mapping):
        raise ValueError("its graph is not a table of nodes")
    graph = {
        str(name): {"class_type": str(node.get("class_type")), "inputs": node["inputs"]}
        for name, node in list(content.items())[:MAX_NODES]
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
    }
    return graph


def _from_editor(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The editor's workflow as a graph, as far as WIDGETS knows its nodes."""
    sources: dict[Any, list[Any]] = {}
    for link in (workflow.get("links") or [])[: 4 * MAX_NODES]:
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int):
            sources[link[0]] = [str(link[1]), link[2]]
    graph: dict[str, Any] = {}
    for node in workflow["nodes"][:MAX_NODES]:
        if not isinstance(node, Mapping):
            continue
        kind, values = str(node.get("type")), node.get("widgets_values")
        names = WIDGETS.get(kind, ())
        inputs = dict(zip(names, values, strict=False)) if isinstance(values, list) else {}
        inputs.pop(None, None)
        for socket in node.get("inputs") or ():
            if isinstance(socket, Mapping) and isinstance(socket.get("link"), int) and socket["link"] in sources:
                inputs[str(socket.get("name"))] = sources[socket["link"]]
        graph[str(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return graph


def _is_sampler(node: Mapping[str, Any]) -> bool:
    inputs = node["inputs"]
    return "sampler" in node["class_type"].lower() and ("latent_image" in inputs or "positive" in inputs)


def _begins(graph: Graph, name: str) -> bool:
    """Whether a sampler starts from noise alone, not from the latents of another one or of a picture."""
    latent = graph[name]["inputs"].get("latent_image")
    nodes = [graph[one]["class_type"] for one in _upstream(graph, latent)]
    return any(kind.startswith("Empty") for kind in nodes) and not any("Sampler" in kind for kind in nodes)


def _from_outputs(graph: Graph) -> Iterator[str]:
    """The nodes that lead to a saved picture, the nearest first."""
    for node in graph.values():
        if "Save" in node["class_type"] or "PreviewImage" in node["class_type"]:
            for link in node["inputs"].values():
                yield from _upstream(graph, link)


def _upstream(graph: Graph, link: Any, stop: Any = None) -> Iterator[str]:
    """The nodes from which a link comes, the nearest first, each once. stop: nodes that are not passed through."""
    waiting = deque([link])
    for target in _visited(graph, waiting):
        yield target
        if stop is None or not stop(graph[target]):
            waiting.extend(list(graph[target]["inputs"].values())[:100])


def _visited(graph: Graph, waiting: deque[Any]) -> Iterator[str]:
    """The nodes that the waiting links lead to, each once. The caller adds the links to follow from each node."""
    seen: set[str] = set()
    while waiting and len(seen) < MAX_VISITS:
        target = _target(graph, waiting.popleft())
        if target is not None and target not in seen:
            seen.add(target)
            yield target


def _target(graph: Graph, link: Any) -> str | None:
    if isinstance(link, list) and len(link) == 2 and isinstance(link[0], str | int) and str(link[0]) in graph:
        return str(link[0])
    return None


def _gathered(graph: Graph, name: str) -> dict[str, Any]:
    """The inputs of a sampler, with those of the nodes in PARTS that it has them from."""
    inputs = dict(graph[name]["inputs"])
    for part, names in PARTS.items():
        if (node := _target(graph, inputs.get(part))) is not None:
            inputs = {one: graph[node]["inputs"][one] for one in names if one in graph[node]["inputs"]} | inputs
    return inputs


def _texts(graph: Graph, link: Any, side: str) -> list[str]:
    """The texts that make a conditioning. side: "positive" or "negative", of nodes that pass both through."""
    found: list[str] = []
    waiting = deque([link])
    for target in _visited(graph, waiting):
        inputs = graph[target]["inputs"]
        texts = [inputs[name] for name in TEXTS if isinstance(inputs.get(name), str) and inputs[name].strip()]
        linked = [inputs[name] for name in TEXTS if isinstance(inputs.get(name), list)]
        if texts or linked:
            found += texts[:2]
            waiting.extendleft(reversed(linked))
        elif side in inputs:
            waiting.append(inputs[side])
        else:
            waiting.extend([value for name, value in inputs.items() if name not in ("clip", "model")][:100])
    return found


def _number(graph: Graph, value: Any) -> Any:
    """A number or text, from the node that a link leads to if it is a link; None if it cannot be found."""
    for _ in range(16):
        target = _target(graph, value)
        if target is None:
            break
        inputs = graph[target]["inputs"]
        value = next((inputs[name] for name in (*NUMBERS, *TEXTS) if name in inputs), None)
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None
