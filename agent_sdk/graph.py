"""A graph of tasks, built up in Python and submitted in one request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from agent_sdk.fields import TaskFields


class TaskSpec:
    """A task that is not submitted yet; `Graph.task` makes them."""

    def __init__(self, ref: str, item: dict[str, Any]) -> None:
        self.ref = ref
        self.item = item

    def after(self, *specs: "TaskSpec | str") -> "TaskSpec":
        """Wait for these too: specs or refs of the same graph, which may come later in it."""
        refs: list[str] = self.item.setdefault("depends_on_refs", [])
        refs.extend(ref_of(spec) for spec in specs)
        return self


class Graph:
    """Tasks, and who waits for whom; the arguments are defaults of every task in it."""

    def __init__(self, **defaults: Unpack[TaskFields]) -> None:
        self.defaults: Mapping[str, Any] = defaults
        self._specs: dict[str, TaskSpec] = {}

    def __len__(self) -> int:
        return len(self._specs)

    def task(
        self,
        ref: str,
        /,
        *,
        after: Iterable[TaskSpec | str] = (),
        parent: TaskSpec | str | None = None,
        **fields: Unpack[TaskFields],
    ) -> TaskSpec:
        """Add a task under a name of its own in this graph, which is its title unless given."""
        if ref in self._specs:
            raise ValueError(f"the graph has a task {ref!r} already")
        item: dict[str, Any] = {"ref": ref, "title": ref, **fields}
        if parent is not None:
            item["parent_ref"] = ref_of(parent)
        spec = TaskSpec(ref, item)
        self._specs[ref] = spec
        return spec.after(*after)

    @property
    def items(self) -> list[dict[str, Any]]:
        """The tasks as the bulk request takes them."""
        return [spec.item for spec in self._specs.values()]


def ref_of(spec: TaskSpec | str) -> str:
    """The name of a task in its graph."""
    return spec.ref if isinstance(spec, TaskSpec) else spec


def as_request(
    graph: Graph | Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """The items and the defaults of a bulk request; an item without a ref gets its index."""
    if isinstance(graph, Graph):
        return list(graph.items), graph.defaults
    return [{"ref": str(index), **item} for index, item in enumerate(graph)], {}
