"""TorchScript and ``torch.export`` files from people one need not trust: what is refused, and why.

Both are zip archives with a program for one of torch's interpreters, and torch's own readers trust
them. Here every archive is taken apart first, each member is looked at, and torch is given a new
archive that holds nothing else, so that no difference between two zip readers hides anything.

``export``: torch would unpickle sample inputs, pickled weights and constants, evaluate shape
expressions, execute guards as Python, and call any function of its modules. The new archive has
raw tensors and a graph only; the graph may call ATen operators (none that touches files) and
integer arithmetic, its names are identifiers, its shape expressions sums and products of symbols,
and it has no guards.

``torchscript``: a program in torch's restricted language, which no Python pickle is needed to
read. Programs that run on being loaded (``__setstate__``), hooks, native classes
(``torch.classes``) and operators other than ATen's (none that touches files) are refused.

What remains: operators get any arguments that the file gives them. A hostile file can waste time
and memory, and might crash torch's native code, which is not hardened against it. It runs in the
worker process; still, weights as safetensors (format ``module``) are the safe way to hand on a
model.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.zip_members import ZipRefused, checked_members

_MAX_BYTES = 2 << 30
_MAX_PROGRAM_BYTES = 64 << 20

# Operators that read or write files, given a name, or write to standard output.
_FORBIDDEN_OPERATORS = {"save", "load", "from_file", "_print"}

# What TorchScript does besides ATen's operators; no calls that were not put in place, no output,
# threads or processes.
_CONTROL_FLOW = frozenset(
    """
    Constant GetAttr SetAttr CreateObject If Loop RaiseException Uninitialized
    ListConstruct ListUnpack TupleConstruct TupleUnpack TupleIndex TupleSlice DictConstruct
    NumToTensor unchecked_cast unchecked_unwrap_optional isinstance annotate min max
    device dtype layout shape data is_cuda
    """.split()  # noqa: SIM905  (words read better than a column of them)
)


def load_torchscript(content: bytes, file: str) -> nn.Module:
    """Load a TorchScript module, on the CPU.

    Args:
        content: The file.
        file: Its name, for messages.

    Raises:
        TomoSegError: ``model-archive-refused``.
    """
    kept: dict[str, bytes] = {}
    for name, data in _members(content, file).items():
        if re.fullmatch(
            r"(data|constants)\.pkl|version|byteorder|\.data/\w+|(data|constants)/\d+", name
        ):
            # These two are read by torch's C++ reader, which knows tensors, containers and the
            # classes under code/; native classes would be its one way out.
            if name.endswith(".pkl") and re.search(rb"torch\s*[.\n]\s*classes", data):
                raise _refused(file, "it holds objects of native classes")
            kept[name] = data
        elif re.fullmatch(r"code/.*\.py", name):
            if len(data) > _MAX_PROGRAM_BYTES:
                raise _refused(file, "its program is too long")
            if found := re.search(rb"__(setstate|forward_hooks|forward_pre_hooks)__", data):
                raise _refused(file, f"its program has {found[0].decode()}")
            kept[name] = data
        # Anything else (debug information, extra files, mobile byte code) is left out.
    if "data.pkl" not in kept or "constants.pkl" not in kept:
        raise _refused(file, "it is not a TorchScript archive")
    try:
        network: nn.Module = torch.jit.load(_archive(kept), map_location="cpu")
        for node in _nodes(network):
            _check_node(node.kind(), file)
    except TomoSegError:
        raise
    except Exception as error:  # torch's reader raises many kinds
        raise _refused(file, f"torch {torch.__version__} cannot read it: {error}") from None
    return network.eval()


def _nodes(network: nn.Module) -> Iterator[Any]:
    """The nodes of all graphs of a script module, with what they call put in their place."""

    def walk(block: Any) -> Iterator[Any]:
        for node in block.nodes():
            yield node
            for inner in node.blocks():
                yield from walk(inner)

    for module in network.modules():
        script: Any = module
        for name in script._c._method_names():
            yield from walk(script._c._get_method(name).inlined_graph)


def _check_node(kind: str, file: str) -> None:
    namespace, _, name = kind.partition("::")
    if namespace == "aten" and name not in _FORBIDDEN_OPERATORS:
        return
    if namespace == "prim" and name in _CONTROL_FLOW:
        return
    raise _refused(file, f"its program calls {kind}")


def load_exported(content: bytes, file: str) -> nn.Module:
    """Load a program that ``torch.export.save`` wrote, on the CPU.

    Args:
        content: The file.
        file: Its name, for messages.

    Raises:
        TomoSegError: ``model-archive-refused``.
    """
    members = _members(content, file)
    if members.get("archive_format") != b"pt2" or "models/model.json" not in members:
        raise _refused(file, "it is not an archive of torch.export as torch 2.8 and newer write it")
    kept = {
        name: data
        for name, data in members.items()
        if name in ("archive_format", "archive_version", "byteorder", ".data/version")
    }
    program = _json(members, "models/model.json", file)
    kept["models/model.json"] = json.dumps(_checked_program(program, file)).encode()
    for folder, prefix in (("weights", "weight_"), ("constants", "tensor_")):
        config_name = f"data/{folder}/model_{folder}_config.json"
        config = _json(members, config_name, file)
        _check_strings(config, file)
        for entry in _dictionary(config.get("config"), file).values():
            path = _dictionary(entry, file).get("path_name")
            if entry.get("use_pickle") is not False:
                raise _refused(file, "it holds pickles, which can run any program")
            if not isinstance(path, str) or not re.fullmatch(prefix + r"\d+", path):
                raise _refused(file, f"it holds {folder} that are no tensors")
            name = f"data/{folder}/{path}"
            if name not in members:
                raise _refused(file, f"{name} is missing")
            kept[name] = members[name]
        kept[config_name] = json.dumps(config).encode()
    # torch wants this member; it would unpickle what is in it.
    kept["data/sample_inputs/model.pt"] = b""
    try:
        network: nn.Module = torch.export.load(_archive(kept)).module()
    except Exception as error:  # torch's reader raises many kinds
        raise _refused(file, f"torch {torch.__version__} cannot read it: {error}") from None
    return network


_ARITHMETIC = frozenset(
    """
    _operator.add _operator.sub _operator.mul _operator.floordiv _operator.truediv _operator.mod
    _operator.neg _operator.eq _operator.ne _operator.lt _operator.le _operator.gt _operator.ge
    _operator.getitem torch.sym_max torch.sym_min torch.sym_int torch.sym_float torch.sym_not
    """.split()  # noqa: SIM905  (words read better than a column of them)
)

# Sums, products and roundings of symbols, as sympy's srepr writes them. No powers: their values
# can be too large to compute.
_EXPRESSION_WORDS = frozenset(
    """
    Symbol Integer Rational Add Mul Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv
    ModularIndexing IntTrueDiv CeilToInt FloorToInt TruncToInt ToFloat Identity
    positive nonnegative negative integer True False
    """.split()  # noqa: SIM905  (words read better than a column of them)
)
_SYMBOL = re.compile(r"'[szu]\d{1,5}'")
_NAME = re.compile(r"[\w.\-+]{0,300}", re.ASCII)


def _checked_program(program: dict[str, Any], file: str) -> dict[str, Any]:
    """The program without what running it does not need, if nothing in the rest is suspicious."""
    module = _dictionary(program.get("graph_module"), file)
    graph = _dictionary(module.get("graph"), file)
    program["guards_code"] = []
    program["range_constraints"] = {
        name: bounds
        for name, bounds in _dictionary(program.get("range_constraints"), file).items()
        if re.fullmatch(r"[szu]\d{1,5}", name)
    }
    module["metadata"] = {}
    module["treespec_namedtuple_fields"] = {}
    nodes = graph.get("nodes")
    if not isinstance(nodes, list):
        raise _refused(file, "its graph has no nodes")
    for node in nodes:
        _dictionary(node, file)["metadata"] = {}
        _check_operator(node.get("target"), file)
    if graph.get("custom_obj_values"):
        raise _refused(file, "it holds objects of native classes")
    _check_strings(program, file)
    return program


def _check_operator(target: Any, file: str) -> None:
    if target in _ARITHMETIC:
        return
    match = re.fullmatch(r"torch\.ops\.aten\.((?!__)\w+)\.((?!__)\w+)", str(target), re.ASCII)
    if match and match[1] not in _FORBIDDEN_OPERATORS:
        packet = getattr(torch.ops.aten, match[1], None)
        if isinstance(getattr(packet, match[2], None), torch._ops.OpOverload):
            return
    raise _refused(file, f"its program calls {str(target)[:100]}")


def _check_strings(value: Any, file: str, key: str = "") -> None:
    """Refuse any string that could be more than a name: torch builds Python source from them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in ("as_custom_obj", "as_operator", "as_graph", "custom_obj", "token"):
                raise _refused(file, f"its program uses {name}")
            _check_strings(name, file)
            _check_strings(inner, file, name)
    elif isinstance(value, list):
        for inner in value:
            _check_strings(inner, file, key)
    elif isinstance(value, str):
        if key == "expr_str":
            fine = _is_plain_expression(value)
        elif key in ("in_spec", "out_spec"):
            fine = _is_plain_tree(_parse(value, file))
        else:
            fine = _NAME.fullmatch(value) is not None
        if not fine:
            raise _refused(file, f"its program holds the text {value[:100]!r}")


def _is_plain_expression(text: str) -> bool:
    """Whether a shape is made of integers, symbols and the functions named above."""
    text = _SYMBOL.sub(" 0 ", text)
    return (
        len(text) < 2000
        and re.fullmatch(r"[A-Za-z0-9(),= -]*", text) is not None
        and set(re.findall(r"[A-Za-z]+", text)) <= _EXPRESSION_WORDS
        and max(map(len, re.findall(r"\d+", text)), default=0) <= 12
    )


def _is_plain_tree(spec: Any) -> bool:
    """Whether inputs or outputs are tuples, lists and dictionaries of tensors."""
    if isinstance(spec, list):  # [protocol version, tree]
        return len(spec) == 2 and isinstance(spec[0], int) and _is_plain_tree(spec[1])
    if not isinstance(spec, dict):
        return False
    context = spec.get("context")
    return (
        spec.keys() <= {"type", "context", "children_spec"}
        and spec.get("type") in (None, "builtins.tuple", "builtins.list", "builtins.dict")
        and (context is None or re.fullmatch(r'null|\[[\w", ]*\]', str(context)) is not None)
        and isinstance(spec.get("children_spec"), list)
        and all(isinstance(c, dict) and _is_plain_tree(c) for c in spec["children_spec"])
    )


def _json(members: dict[str, bytes], name: str, file: str) -> dict[str, Any]:
    if name not in members:
        raise _refused(file, f"{name} is missing")
    if len(members[name]) > _MAX_PROGRAM_BYTES:
        raise _refused(file, "its program is too long")
    return _dictionary(_parse(members[name], file), file)


def _parse(text: str | bytes, file: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _refused(file, "its program is not JSON") from None


def _dictionary(value: Any, file: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused(file, "its program is malformed")
    return value


def _members(content: bytes, file: str) -> dict[str, bytes]:
    """Members by name, without the one folder that all of them lie in."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = checked_members(archive, _MAX_BYTES)
            if len({name.partition("/")[0] for name in members}) != 1:
                raise _refused(file, "its members do not lie in one folder")
            return {name.partition("/")[2]: archive.read(info) for name, info in members.items()}
    except ZipRefused as error:
        raise _refused(file, str(error)) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError):
        raise _refused(file, "it is not a readable zip archive") from None


def _archive(members: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    buffer.seek(0)
    return buffer


def _refused(file: str, reason: str) -> TomoSegError:
    first_line = (reason.strip().splitlines() or ["unknown"])[0][:300]
    return TomoSegError(
        "model-archive-refused",
        f"The network in {file} is refused: {first_line}.",
        "Hand on the model as a class with safetensors weights (format module), or export it "
        "again in evaluation mode, without custom operators.",
    )
