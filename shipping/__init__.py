"""Builds what is shipped: the OCI image of a node, from this checkout and its .venv, without a container engine.

`python -m shipping` (`make image`) collects the files (interpreter.py, distributions.py, libraries.py, root_files.py),
adds byte code (bytecode.py), packs them into layers (archive.py) and writes an OCI layout, a tar that engines load, and
an SBOM (oci.py, sbom.py). The same checkout, .venv and system give the same digest.
"""
