"""Ops that a signature runs, and their effects besides computing outputs from rows. Read from
`saved_model.pb` without TensorFlow: `tensorflow/core/framework/graph.proto`, `function.proto`, `op_def.proto` and
`tensorflow/core/protobuf/saved_object_graph.proto`.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import message

from beam_score.transforms.model.proto_fields import message_class
from beam_score.transforms.model.signature import ModelError, serving_graph

EFFECTS = {
    "reads": "reads files",
    "writes": "writes files",
    "python": "calls Python",
    "random": "draws random numbers",
    "state": "keeps state between calls",
}
"""Effects of ops besides computing, with the words that describe them."""

_INIT = "__saved_model_init_op"
_OLD_INIT = ("saved_model_main_op", "legacy_init_op")
"""Collections that name the op to run at load time, in models of TensorFlow 1."""

_AT_LOAD = frozenset(("_create_resource", "_initialize", "initializer"))
"""Functions of resources (tables) that `tf.saved_model.load` calls."""

_KINDS = {
    "reads": (
        "ReadFile|MatchingFiles|LoadAndRemapMatrix|RecordInput|Restore|RestoreSlice|RestoreV2|DTensorRestoreV2|Skipgram"
        "|Reader\\w+|\\w+ReaderV?2?|LoadDataset|ListSnapshotChunksDataset|SnapshotDataset(V2)?"
        "|(Experimental)?(CSV|LMDB|MatchingFiles|Sql)Dataset(V2)?|(FixedLengthRecord|TextLine|TFRecord)Dataset(V2)?"
        "|DataServiceDataset(V\\d)?|RpcCall|RpcClient"
    ),
    "writes": (
        "WriteFile|Save|SaveSlices|SaveV2|SaveDataset(V2)?|DistributedSave|MergeV2Checkpoints|DumpTensor|\\w*DatasetToTFRecord"
        "|Write\\w*Summary|\\w+SummaryWriter|CalibrationStatisticsSaver|DebugIdentity(V\\d)?|RpcServer\\w*|FileSystemSetConfiguration"
    ),
    "python": "PyFunc|EagerPyFunc|PyFuncStateless|GeneratorDataset",
    "random": (
        "Random(?!IndexShuffle|GammaGrad)\\w+|\\w+RandomDataset(V2)?|RiscRandomUniform|Stateful\\w*(Normal|Uniform|UniformInt|UniformFullInt|Binomial)(V2)?"
        "|Multinomial|(Parameterized)?TruncatedNormal|\\w+CandidateSampler|SampleDistortedBoundingBox(V2)?|NegTrain"
        "|NonDeterministicInts|Shuffle(AndRepeat)?Dataset(V\\d)?|RngSkip|RngReadAndSkip|\\w*SeedGenerator"
    ),
    # The old versions of these ops, on references to variables, are not registered as stateful.
    "state": "Assign(Add|Sub)?|Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|Update)|CountUpTo|(Sparse)?Apply[A-Z]\\w+",
}
_HARMLESS = re.compile(
    "ReadVariable(Op|XlaSplitND)|VarHandleOp|VarIsInitializedOp|Variable(V2|Shape)?|_ReadVariablesOp|_VarHandlesOp"
    "|ResourceGather(Nd)?|GuaranteeConst|DisableCopyOnRead|(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?"
    "|LookupTable(Find|Size|Export|Import)(V2)?|InitializeTable(FromDataset|FromTextFile)?(V2)?|MakeWeakResourceHandle"
    "|IsResourceHandleRefCounting|DestroyResourceOp|ResourceInitializedOp"
    "|Assert|Print(V2)?|CheckNumerics(V2)?|TensorArray\\w*|Stack\\w*|TemporaryVariable|Empty|DeepCopy|DtypeWithDefaultOp"
    "|_?(If|While|Case)|StatefulPartitionedCall|RemoteCall|Xla\\w+|_?(Send|Recv|Arg|Retval)|_Device(Arg|Retval)|DeviceIndex"
    "|(Add|Take)(Many)?Sparse(To|From)TensorsMap|GraphDefVersion|StatelessRandomGetAlg|CudnnRNN(V\\d)?|SyncDevice|IsTensorFloat32Enabled"
    "|BoostedTrees(Predict|ExampleDebugOutputs|EnsembleResourceHandleOp|GetEnsembleStates|CreateEnsemble|DeserializeEnsemble"
    "|QuantileStreamResource(HandleOp|GetBucketBoundaries|Deserialize))|IsBoostedTrees\\w+"
    "|(Range|Tensor|TensorSlice|SparseTensorSlice|Reduce|List)Dataset|DatasetToSingleElement|ReduceDataset|IteratorGetNext\\w*"
)
"""Ops that are registered as stateful, since a graph must not drop or merge them, but do not affect the outputs of a
row."""

_NAMED = {kind: re.compile(names) for kind, names in _KINDS.items()}


@dataclasses.dataclass(frozen=True)
class ModelOps:
    """The ops of a model that one signature may run.

    Attributes:
      called: names of the ops that a call may run, including functions.
      at_load: names of the ops that loading the model runs.
      stateful: the ops of both that the file declares as stateful.
    """

    called: frozenset[str]
    at_load: frozenset[str]
    stateful: frozenset[str]

    def effects(self, at_load: bool = True) -> dict[str, tuple[str, ...]]:
        """Return the ops with effects, by kind (a key of `EFFECTS`), in the order of `EFFECTS`.

        Args:
          at_load: whether to include ops that only loading the model runs; reading variables and filling tables at
            load time is not an effect.
        """
        found: dict[str, list[str]] = {kind: [] for kind in EFFECTS}
        for op in sorted(self.called | self.at_load if at_load else self.called):
            kind = self._effect(op)
            if kind is not None and (op in self.called or kind != "state"):
                found[kind].append(op)
        return {kind: tuple(ops) for kind, ops in found.items() if ops}

    def _effect(self, op: str) -> str | None:
        if _HARMLESS.fullmatch(op):
            return None
        named = next((kind for kind, names in _NAMED.items() if names.fullmatch(op)), None)
        return named or ("state" if op in self.stateful else None)

    @property
    def dependent(self) -> list[str]:
        """Phrases like those of `describe`, for the effects by which outputs depend on more than the row."""
        kinds = self.effects(at_load=False)
        return [f"{EFFECTS[kind]} ({', '.join(ops)})" for kind, ops in kinds.items() if kind != "reads"]

    def describe(self, at_load: bool = True) -> list[str]:
        """Return a phrase per kind of effect, such as `draws random numbers (RandomUniform)`."""
        return [f"{EFFECTS[kind]} ({', '.join(ops)})" for kind, ops in self.effects(at_load).items()]


def ops_of(path: str | os.PathLike[str], signature: str) -> ModelOps:
    """Return the ops of a SavedModel folder that a signature runs.

    Args:
      signature: its name.

    Raises:
      ModelError: the file is damaged, or has no such signature.
    """
    meta = serving_graph(path)
    if signature not in meta.signature_def:
        raise ModelError(f"the model in {path} has no signature {signature!r}")
    try:
        graph, objects, registered = (
            _message(name).FromString(data)
            for name, data in (
                ("GraphDef", meta.graph_def),
                ("SavedObjectGraph", meta.object_graph_def),
                ("OpList", meta.meta_info_def.stripped_op_list),
            )
        )
    except message.DecodeError as error:
        raise _damaged(path) from error
    functions = {f.signature.name: f.node_def for f in graph.library.function}
    called = _reached(_ancestors(graph.node, _nodes(meta.signature_def[signature])), functions)
    init = _nodes(meta.signature_def[_INIT]) if _INIT in meta.signature_def else set()
    init |= {
        _node(n) for key in _OLD_INIT if key in meta.collection_def for n in meta.collection_def[key].node_list.value
    }
    at_load = _reached(_ancestors(graph.node, init), functions)
    for name in _load_functions(objects):
        at_load |= _reached(functions.get(name, ()), functions)
    stateful = {op.name for op in registered.op if op.is_stateful}
    return ModelOps(frozenset(called), frozenset(at_load), frozenset((called | at_load) & stateful))


def nodes_of(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the nodes of a SavedModel folder, including those of functions: name to op. Raises ModelError."""
    try:
        graph = _message("GraphDef").FromString(serving_graph(path).graph_def)
    except message.DecodeError as error:
        raise _damaged(path) from error
    found = {node.name: node.op for function in graph.library.function for node in function.node_def}
    return found | {node.name: node.op for node in graph.node}


def _damaged(path: str | os.PathLike[str]) -> ModelError:
    return ModelError(f"{path}/saved_model.pb is damaged: export or copy the model again")


def _nodes(signature: Any) -> set[str]:
    """Return the graph nodes that produce the outputs of a signature."""
    names = set()
    for info in signature.outputs.values():
        sparse = info.coo_sparse
        names |= {info.name, sparse.values_tensor_name, sparse.indices_tensor_name, sparse.dense_shape_tensor_name}
        names |= {component.name for component in info.composite_tensor.components}
    return {_node(name) for name in names if name}


def _node(tensor: str) -> str:
    """Return the node of `node:0` or `^node`."""
    return tensor.removeprefix("^").split(":")[0]


def _ancestors(nodes: Iterable[Any], wanted: Iterable[str]) -> Iterator[Any]:
    """Yield the nodes that run to compute the wanted ones: TensorFlow prunes the rest of the main graph."""
    by_name = {node.name: node for node in nodes}
    todo, seen = list(wanted), set()
    while todo:
        node = by_name.get(name := todo.pop())
        if node is not None and name not in seen:
            seen.add(name)
            todo += [_node(tensor) for tensor in node.input]
            yield node


def _reached(nodes: Iterable[Any], functions: Mapping[str, Any]) -> set[str]:
    """Return the ops of some nodes and of all functions that they call, without the names of functions."""
    ops: set[str] = set()
    seen: set[str] = set()
    todo = [nodes]
    while todo:
        for node in todo.pop():
            ops.add(node.op)
            called = {f.name for value in node.attr.values() for f in (value.func, *value.list.func) if f.name}
            for name in (called | {node.op}) & functions.keys() - seen:
                seen.add(name)
                todo.append(functions[name])
    return ops - functions.keys()


def _load_functions(objects: Any) -> Iterator[str]:
    """Yield the names of the functions that `tf.saved_model.load` calls."""
    for parent in objects.nodes:
        for child in parent.children:
            if child.local_name in _AT_LOAD and 0 <= child.node_id < len(objects.nodes):
                found = objects.nodes[child.node_id]
                yield from found.function.concrete_functions
                if found.bare_concrete_function.concrete_function_name:
                    yield found.bare_concrete_function.concrete_function_name


_FIELDS = {
    "GraphDef": [("node", 1, "*NodeDef"), ("library", 2, "FunctionDefLibrary")],
    "NodeDef": [("name", 1, "string"), ("op", 2, "string"), ("input", 3, "*string"), ("attr", 5, "%AttrValue")],
    "AttrValue": [("list", 1, "ListValue"), ("func", 10, "NameAttrList")],
    "ListValue": [("func", 9, "*NameAttrList")],
    "NameAttrList": [("name", 1, "string")],
    "FunctionDefLibrary": [("function", 1, "*FunctionDef")],
    "FunctionDef": [("signature", 1, "OpDef"), ("node_def", 3, "*NodeDef")],
    "OpDef": [("name", 1, "string"), ("is_stateful", 17, "bool")],
    "OpList": [("op", 1, "*OpDef")],
    "SavedObjectGraph": [("nodes", 1, "*SavedObject")],
    "SavedObject": [
        ("children", 1, "*ObjectReference"),
        ("function", 6, "SavedFunction"),
        ("bare_concrete_function", 8, "SavedBareConcreteFunction"),
    ],
    "ObjectReference": [("node_id", 1, "int32"), ("local_name", 2, "string")],
    "SavedFunction": [("concrete_functions", 1, "*string")],
    "SavedBareConcreteFunction": [("concrete_function_name", 1, "string")],
}
"""See `transforms.model.proto_fields.Fields`."""


@functools.cache
def _message(name: str) -> type[message.Message]:
    return message_class(name, _FIELDS, f"beam_score.model_ops_{name.lower()}")
