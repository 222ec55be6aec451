# SPDX-License-Identifier: Apache-2.0
"""Sandboxes: what `ringfence run` starts, by the runtime and the image store of the project.

    request.py   what was asked for, as plain values; values.py reads each kind of them from text
    oci.py       a request, an image and a user become an OCI configuration; fences.py chooses its fences
    files.py     hosts, resolv.conf and hostname
    place.py     the directory of one sandbox: its record, its lock, its life
    start.py     the order of a start; stdio.py carries its output; remove.py ends it and sweeps what died
    network/     links, addresses and published ports (pyroute2 only where a bridge or a sub-interface is
    made)

Nothing here prints.
"""
