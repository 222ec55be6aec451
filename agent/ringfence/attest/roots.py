# SPDX-License-Identifier: Apache-2.0
"""The vendors' root keys, pinned: SHA-256 of each key's SubjectPublicKeyInfo.

Keys are pinned, not certificates: a vendor may renew the certificate of a key. AMD publishes its
keys as `https://kdsintf.amd.com/vcek/v1/PRODUCT/cert_chain`, Intel its key as
`https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer`.
"""

from __future__ import annotations

__all__ = ["AMD_ROOTS", "INTEL_ROOT"]

# key digest -> product
AMD_ROOTS = {
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin",
}
INTEL_ROOT = "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e"
