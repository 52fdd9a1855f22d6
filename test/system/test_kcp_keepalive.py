"""What keeps a player of KCP in, and what does not."""

from janus.kcp import Bridge
from janus.patience import ms, wait_for
from janus.programs import Gateway, nodes_of
from test_drain import works


def test_signs_of_life_of_the_connection_keep_no_player_in(start, backend):
    """The connection's NOPs and another stream's messages are none of a player who is silent."""
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"idle_timeout": f"{ms(1.5)}ms"}})
    bridge = start(Bridge, gateway, keepalive="100ms", keepalive_timeout="10s")
    with bridge.player(47001, session="a") as silent, bridge.player(47002, session="a") as player:
        def talks_until_the_other_is_gone():
            works(player)
            return gateway.closed("idle_timeout") == 1
        wait_for(talks_until_the_other_is_gone, "the silent one to be closed")
        silent.receive_end()
        assert not silent.reset
        works(player)
