"""Agents and operators who work on the same few tasks without any plan: the books stay in order.

So does the log, from which they could be made again.
"""

from tests.factories import Workspace
from tests.replay import replay
from tests.throng import Throng
from tests.world import Servers, World


def test_whatever_is_called_at_once_the_books_stay_in_order(
    world: World, workspace: Workspace, servers: Servers
) -> None:
    """P1, P3, P6, P7, P8; and nobody is answered by an error of the server."""
    loops = servers.start(WORKLEASE_LOOPS=True, WORKLEASE_SWEEP_SECONDS=0.1)
    throng = Throng(workspace)
    throng.live([world.server.url, loops.server.url])
    assert {201, 404, 409} < {met[2] for met in throng.met}
    assert workspace.miscounts() == {}
    replay(world, workspace.id, workspace.log())
