# SPDX-License-Identifier: Apache-2.0
"""`helm test`: one harmless attack, and its alert. Environment: AGENTS (host name of all agents), PORT, RULE.

The attack is a UDP connect to a cloud's metadata address: it sends no packet, and every policy that is worth its name
has a rule about it. In mode enforce it must fail; in any mode the counter of the rule must rise on some agent.
"""

import os
import re
import socket
import sys
import time
import urllib.request

AGENTS, PORT, RULE = os.environ["AGENTS"], int(os.environ["PORT"]), os.environ["RULE"]
SECONDS = float(os.environ.get("SECONDS_TO_WAIT", "30"))


def agents():
    """Addresses of all agents."""
    return sorted({one[4][0] for one in socket.getaddrinfo(AGENTS, PORT, socket.AF_INET, socket.SOCK_STREAM)})


def alerts():
    """How often the rule was broken, as all agents together count."""
    total = 0
    for address in agents():
        with urllib.request.urlopen(f"http://{address}:{PORT}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if re.match(r'ringfence_alerts_total\{(?:.*,)?rule="%s"[,}]' % re.escape(RULE), line):
                    total += float(line.rsplit(" ", 1)[1])
    return total


def attack():
    """Try it; how it ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("169.254.169.254", 80))
        except PermissionError:
            return "refused"
        except OSError as error:
            return f"failed ({error.strerror})"
        return "let through"


def main():
    """0 when the alert was seen."""
    before = alerts()
    print(f"{len(agents())} agents, {before:.0f} alerts of {RULE} so far")
    print(f"the attack was {attack()}")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if alerts() > before:
            print("its alert was counted: ok")
            return 0
        time.sleep(0.5)
    print("no agent counted an alert: NOT OK (is there an agent on this pod's node?)")
    return 1


sys.exit(main())
