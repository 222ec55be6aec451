# SPDX-License-Identifier: Apache-2.0
"""`helm test`: one harmless attack, and its alert.

Environment: AGENTS (host name of all agents), PORT, MODE (audit, enforce or policy), NAMESPACE and POD (this pod; POD
empty: agents know no pods).

The attack is a UDP connect to a cloud's metadata address: it sends no packet. The agent on this pod's node must have
counted it for this pod, and the outcome of the call must correspond to the mode.
"""

import os
import re
import socket
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

AGENTS, PORT, MODE = os.environ["AGENTS"], int(os.environ["PORT"]), os.environ["MODE"]
NAMESPACE, POD = os.environ["NAMESPACE"], os.environ["POD"]
SECONDS = float(os.environ.get("SECONDS_TO_WAIT", "30"))
RULE = "cloud-metadata"
STOPPED = {"denied", "killed"}
SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def addresses():
    """Returns the addresses of all agents, IPv4 and IPv6."""
    try:
        found = socket.getaddrinfo(AGENTS, PORT, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except socket.gaierror as error:
        print(f"{AGENTS}: {error.strerror}")
        return []
    return sorted({one[4][0] for one in found})


def scrape(address):
    """Returns the series of one agent: (name, labels, value). None: it does not answer."""
    host = f"[{address}]" if ":" in address else address
    try:
        with urllib.request.urlopen(f"http://{host}:{PORT}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError as error:
        print(f"{address}: {error}")
        return None
    lines = (SERIES.fullmatch(line) for line in text.splitlines() if line.startswith("ringfence_"))
    return [(line[1], dict(LABEL.findall(line[2] or "")), float(line[3])) for line in lines if line]


def scrapes():
    """Returns the series of each agent that answers, by address."""
    with ThreadPoolExecutor(16) as pool:
        every = addresses()
        return {one: found for one, found in zip(every, pool.map(scrape, every)) if found is not None}


def outcomes(series):
    """Returns the number of the rule's verdicts on that node, by outcome."""
    return {
        labels["outcome"]: value
        for name, labels, value in series
        if name == "ringfence_alerts_total" and labels["rule"] == RULE
    }


def of_this_pod(series):
    """Returns True if that agent counted a verdict for a container of this pod.

    On a node with more containers than `metrics.containers` this one may have no series: then the rule's count stands.
    """
    if not POD:
        return True
    mine = {
        labels["container"]
        for name, labels, _ in series
        if name == "ringfence_container_info" and (labels["namespace"], labels["pod"]) == (NAMESPACE, POD)
    }
    if not mine:
        return any(name == "ringfence_containers_summed" and value for name, _, value in series)
    return any(
        name == "ringfence_container_activity_total"
        and labels["container"] in mine
        and labels["class"] in ("alert", "deny", "kill")
        and value
        for name, labels, value in series
    )


def attack():
    """Tries it in a child process, which can be killed; returns the result."""
    child = os.fork()
    if child == 0:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("169.254.169.254", 80))
            except PermissionError:
                os._exit(1)
            except OSError:
                os._exit(2)
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return ("allowed", "refused", "allowed, but failed for another reason")[os.WEXITSTATUS(status)]


def risen(before, after):
    """Returns {address: outcome} of agents that counted a new verdict of the rule."""
    found = {}
    for address, series in after.items():
        was = outcomes(before[address]) if address in before else {}
        for outcome, value in outcomes(series).items():
            if value > was.get(outcome, 0):
                found[address] = outcome
    return found


def seen(before):
    """Returns the outcome that the agent of this pod counted; "" : none yet."""
    after = scrapes()
    for address, outcome in risen(before, after).items():
        if of_this_pod(after[address]):
            return outcome
    return ""


def wrong(done, outcome):
    """Returns the difference from the required result; "" : none."""
    stopped = done in ("refused", "killed")
    if stopped != (outcome in STOPPED):
        return f"the agent reported {outcome}, but the call was {done}"
    if MODE == "enforce" and not stopped:
        return "mode enforce, but it was not stopped: can this node stop it (ringfence probe)?"
    if MODE == "audit" and stopped:
        return "mode audit, but it was stopped"
    return ""


def main():
    """Returns 0 if the alert was counted, and the call's result corresponds to the mode."""
    before = scrapes()
    print(f"{len(before)} agents answer; mode {MODE}")
    done = attack()
    print(f"the attack was {done}")
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if outcome := seen(before):
            problem = wrong(done, outcome)
            subject = "of this pod" if POD else "of this rule"
            print(f"an alert {subject} was counted ({outcome}): {'NOT OK: ' + problem if problem else 'ok'}")
            return 1 if problem else 0
        time.sleep(0.5)
    print(f"no agent counted an alert of {NAMESPACE}/{POD or '(any pod)'}: NOT OK (is there an agent on this pod's node?)")
    return 1


sys.exit(main())
