# SPDX-License-Identifier: Apache-2.0
"""Sandboxes: the containers of `ringfence run`, started with the project's runtime and image store.

    request.py   the request as plain values; values.py parses each kind from text
    oci.py       makes an OCI configuration of a request, an image and a user; fences.py its restrictions
    files.py     hosts, resolv.conf and hostname
    place.py     the directory of one sandbox: its record, lock and status
    start.py     the sequence of a start; stdio.py copies its output; remove.py removes and sweeps
    network/     links, addresses and published ports (pyroute2 only for bridges and sub-interfaces)

Nothing here prints.
"""
