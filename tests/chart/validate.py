"""Validates manifests from standard input against the newest Kubernetes schemas that kubernetes-validate carries.

Prints one JSON list: for each manifest its kind and name, and what is wrong; null where nothing is, "custom" for a kind
that Kubernetes itself does not have.
"""

import json
import sys

import kubernetes_validate
import yaml

VERSION = kubernetes_validate.latest_version()
verdicts = []
for manifest in yaml.safe_load_all(sys.stdin):
    if manifest is None:
        continue
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        wrong = None
    except kubernetes_validate.SchemaNotFoundError:
        wrong = "custom"
    except kubernetes_validate.ValidationError as error:
        wrong = f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    verdicts.append({"what": f"{manifest['kind']}/{manifest['metadata']['name']}", "wrong": wrong})
print(json.dumps({"version": VERSION, "verdicts": verdicts}))
