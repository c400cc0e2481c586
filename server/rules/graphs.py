"""Graphs of new tasks, before they are made."""

from collections.abc import Mapping, Sequence


def find_cycle(edges: Mapping[str, Sequence[str]]) -> list[str] | None:
    """A cycle among the nodes, the first named again at the end; None if there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        on_path: set[str] = set()
        # (node, whether it is left): depth first without recursion, for graphs of any depth.
        steps = [(start, False)]
        while steps:
            node, left = steps.pop()
            if left:
                on_path.discard(path.pop())
                done.add(node)
            elif node in on_path:
                return [*path[path.index(node) :], node]
            elif node not in done:
                path.append(node)
                on_path.add(node)
                steps.append((node, True))
                steps.extend((next_node, False) for next_node in edges.get(node, ()))
    return None
