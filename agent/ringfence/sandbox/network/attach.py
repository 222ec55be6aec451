# SPDX-License-Identifier: Apache-2.0
"""The life cycle of a sandbox's network: leased before the start, attached to its namespace, released.

The kernel's state always follows from the records: rules are generated from all records, links are found
by their recorded names. So releasing twice, or after a crash, is the same as releasing once.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.network import rules
from ringfence.sandbox.network.netlink import delete_link
from ringfence.sandbox.network.nft import delete_table, replace_table
from ringfence.sandbox.network.plan import Plan
from ringfence.sandbox.network.pool import Pool
from ringfence.sandbox.network.ports import Port

__all__ = ["Helper", "forwards", "lease", "release", "turn_on_forwarding"]

_FORWARDING = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}


def lease(state: str, plan: Plan, sandbox: str, ports: list[Port]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leases and records addresses and ports for a sandbox; returns (network, lease)."""
    with Pool(state) as pool:
        return pool.lease(plan, sandbox, ports)


class Helper:
    """A child that imports pyroute2 while the container is created, and then connects it.

    Its memory is freed when it ends, and it can change its network namespace permanently.
    """

    def __init__(self, state: str, sandbox: str) -> None:
        commands, self._commands = os.pipe2(os.O_CLOEXEC)
        self._answers, answers = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child == 0:
            os.close(self._commands)
            os.close(self._answers)
            _help(commands, answers, state, sandbox)
        os.close(commands)
        os.close(answers)

    def attach(self, pid: int) -> None:
        """Creates rules, and links in the namespace of process `pid`."""
        try:
            os.write(self._commands, str(pid).encode())
        except BrokenPipeError:
            pass  # its answer has the reason
        said, status = self._end()
        if said:
            raise SandboxError(**json.loads(said))
        if status:
            raise SandboxError(f"the network helper ended with {status}")

    def close(self) -> None:
        """Ends it without work, if it still runs."""
        if self._child:
            self._end()

    def _end(self) -> tuple[bytes, int]:
        os.close(self._commands)
        with open(self._answers, "rb") as file:
            said = file.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._child = 0
        return said, status


def _help(commands: int, answers: int, state: str, sandbox: str) -> None:
    """The child's main function; does not return."""
    said: dict[str, str] = {}
    try:
        from ringfence.sandbox.network import links

        if pid := os.read(commands, 32):
            with Pool(state) as pool:
                for network in pool.held_by(sandbox):
                    _apply(pool)
                    links.attach(network, network["leases"][sandbox], int(pid), sandbox)
    except SandboxError as error:
        said = {"message": error.message, "hint": error.hint}
    except ImportError as error:
        said = {"message": f"networks need pyroute2: {error}", "hint": "pip install pyroute2"}
    except BaseException as error:
        said = {"message": f"network: {type(error).__name__}: {error}"}
    finally:
        if said:
            os.write(answers, json.dumps(said).encode())
        os._exit(1 if said else 0)


def _apply(pool: Pool) -> None:
    """Replaces the table according to the records; removes it if nothing needs it."""
    wanted = rules.chains(pool.networks())
    if wanted:
        replace_table(pool.table, wanted)
    else:
        delete_table(pool.table)


def release(state: str, sandbox: str) -> None:
    """Releases ports, links and addresses; with the last sandbox also the bridge and the table."""
    if not os.path.isdir(f"{state}/networks"):
        return
    with Pool(state) as pool:
        for network in list(pool.held_by(sandbox)):
            held = network["leases"].pop(sandbox)
            # The record is removed last: if this is interrupted, the record allows to repeat it.
            delete_link(held["link"])
            others = [each for each in pool.networks() if each["file"] != network["file"]]
            wanted = rules.chains([*others, network] if network["leases"] else others)
            replace_table(pool.table, wanted) if wanted else delete_table(pool.table)
            if not network["leases"] and network["mode"] == "bridge":
                delete_link(network["link"])
            pool.save(network)


def forwards(version: int) -> bool:
    """Returns True if the kernel forwards packets between links."""
    try:
        with open(_FORWARDING[version], encoding="ascii") as file:
            return file.read().strip() != "0"
    except FileNotFoundError:
        return False


def turn_on_forwarding(version: int) -> None:
    """Enables forwarding. Only at the user's request: it makes the whole host a router."""
    with open(_FORWARDING[version], "w", encoding="ascii") as file:
        file.write("1")
