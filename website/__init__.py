"""The documentation site: pages that are made of the code, and MkDocs' hooks. `make docs` builds it from docs/."""
