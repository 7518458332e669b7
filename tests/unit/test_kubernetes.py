"""deploy/kubernetes says what the settings, the images, compose and the queues' names say."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from gateway.catalog import REMEMBER
from gateway.http.operate import register
from gateway.settings import GatewaySettings
from millstream import healthcheck
from shared import subjects
from shared.settings import COMMON, COMMON_PREFIX, ProcessSettings
from workers import bundled
from workers.engines.torch.settings import Settings as TorchSettings
from workers.engines.torch.settings import parse
from workers.host import SETTLE_LIMIT
from workers.settings import WorkerSettings

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
NATS = ROOT / "deploy" / "nats"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
KUSTOMIZATIONS = [NATS / "kustomization.yaml", *FOLDER.rglob("kustomization.yaml")]
BUILT = [FOLDER / "base", *sorted((FOLDER / "overlays").iterdir())]
PROCESSES: dict[str, type[ProcessSettings]] = {"gateway": GatewaySettings, "worker": WorkerSettings}
DOCKERFILES = {
    "millstream-gateway": "gateway.Dockerfile",
    "millstream-worker": "worker.Dockerfile",
    "millstream-worker-vllm": "worker-vllm.Dockerfile",
}
MARGIN = 10.0
"""Seconds of a pod's grace beyond what its process may take to drain."""

Manifest = dict[str, Any]


def read(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def manifests() -> list[tuple[Path, Manifest]]:
    """Every object and patch that has a kind."""
    found = [(path, one) for path in FILES if path.suffix == ".yaml" for one in read(path)]
    return [(path, one) for path, one in found if isinstance(one, dict) and "kind" in one]


def named(kind: str, name: str, path: str) -> Manifest:
    (found,) = (
        one
        for one in read(FOLDER / path)
        if one["kind"] == kind and one["metadata"]["name"] == name
    )
    return dict(found)


def pods() -> Iterator[tuple[Path, Manifest, Manifest]]:
    """Every pod's spec with its one container, of patches too."""
    for path, one in manifests():
        if one["kind"] in ("Deployment", "StatefulSet"):
            spec = one["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            yield path, spec, container


def container(name: str) -> Manifest:
    kind = "StatefulSet" if name == "nats" else "Deployment"
    spec = named(kind, name, f"base/{name}.yaml")["spec"]["template"]["spec"]
    return dict(spec["containers"][0])


def variables(one: Manifest) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in one.get("env", [])}


def settings_of(path: Path, process: str) -> ProcessSettings:
    """What a process of these variables is told; files of secrets, which are not here, aside."""
    found = {}
    for _, _, one in (pod for pod in pods() if pod[0] == path):
        found.update(variables(one))
    cls = PROCESSES[process]
    given: dict[str, Any] = {}
    for field in cls.model_fields:
        for name in (f"MILLSTREAM_{process}_{field}".upper(), f"{COMMON_PREFIX}{field}".upper()):
            value = found.get(name)
            if value and not value.startswith("/run/millstream/"):
                given.setdefault(field, value)
    return cls(**given)


def listed(kustomization: Manifest) -> Iterator[str]:
    """The paths that a kustomization refers to."""
    yield from kustomization.get("resources", [])
    yield from kustomization.get("components", [])
    for patch in kustomization.get("patches", []):
        if "path" in patch:
            yield patch["path"]
    for generator in kustomization.get("configMapGenerator", []):
        yield from generator["files"]


def test_every_file_belongs_to_a_kustomization_and_every_reference_leads_somewhere() -> None:
    reached = set(KUSTOMIZATIONS)
    for path in KUSTOMIZATIONS:
        (one,) = read(path)
        for name in listed(one):
            found = (path.parent / name).resolve()
            assert found.exists(), f"{path}: {name}"
            if found.is_file():
                assert found.parent == path.parent, "kustomize reads nothing outside its folder"
            reached.add(found)
    assert reached >= set(FILES)
    folders = {path.parent for path in KUSTOMIZATIONS} - set(BUILT)
    assert reached >= folders - {FOLDER / "base"}


def test_nats_gets_the_files_of_compose_and_starts_with_those() -> None:
    (one,) = read(NATS / "kustomization.yaml")
    (generator,) = one["configMapGenerator"]
    assert set(generator["files"]) == {path.name for path in NATS.glob("*.conf")}
    known = {*generator["files"]}
    for path in FOLDER.rglob("*.conf"):
        known.add(path.name)
    for path, _, one in (pod for pod in pods() if "args" in pod[2]):
        flag, config = one["args"]
        assert flag == "--config"
        assert config.removeprefix("/etc/millstream/nats/") in known, path
    for path in FOLDER.rglob("*.conf"):
        assert set(re.findall(r'include "(.+)"', path.read_text())) <= known
    ((mount, _),) = (
        (mount, volume)
        for mount in container("nats")["volumeMounts"]
        for volume in ("config",)
        if mount["name"] == volume
    )
    assert mount["mountPath"] == "/etc/millstream/nats"
    assert '"/data"' in (NATS / "nats.conf").read_text()


@pytest.mark.parametrize("process", PROCESSES)
def test_every_variable_is_a_setting(process: str) -> None:
    fields = set(PROCESSES[process].model_fields)
    prefix = f"MILLSTREAM_{process}_".upper()
    for path, _, one in pods():
        if one["name"] != process:
            continue
        for name in variables(one):
            if name.startswith(prefix):
                assert name.removeprefix(prefix).lower() in fields, f"{path}: {name}"
            elif name.startswith(COMMON_PREFIX):
                assert name.removeprefix(COMMON_PREFIX).lower() in COMMON, f"{path}: {name}"
            else:
                assert name == "HF_TOKEN", f"{path}: {name}"
        settings_of(path, process)  # Each value is allowed.


def test_the_bundled_worker_gets_arguments_that_its_engine_knows() -> None:
    worker = settings_of(FOLDER / "base" / "worker.yaml", "worker")
    assert isinstance(worker, WorkerSettings)
    TorchSettings.checked(model="", served_name="", **parse(worker.engine_args))
    cores = container("worker")["resources"]["requests"]["cpu"]
    assert worker.engine_args["threads"] == cores


def test_ports_are_those_of_the_settings_and_services_lead_to_them() -> None:
    ports = {
        name: {port["name"]: port["containerPort"] for port in container(name)["ports"]}
        for name in ("gateway", "worker", "nats")
    }
    gateway = settings_of(FOLDER / "base" / "gateway.yaml", "gateway")
    worker = settings_of(FOLDER / "base" / "worker.yaml", "worker")
    assert isinstance(gateway, GatewaySettings)
    assert ports["gateway"] == {
        "grpc": gateway.grpc_port,
        "http": gateway.http_port,
        "metrics": gateway.metrics_port,
    }
    assert ports["worker"] == {"metrics": worker.metrics_port}
    assert f'"0.0.0.0:{ports["nats"]["client"]}"' in (NATS / "nats.conf").read_text()
    assert gateway.nats == worker.nats == (f"nats://nats:{ports['nats']['client']}",)
    patch = named("StatefulSet", "nats", "components/autoscale/nats.yaml")
    (monitor,) = patch["spec"]["template"]["spec"]["containers"][0]["ports"]
    ports["nats"][monitor["name"]] = monitor["containerPort"]
    monitored = (FOLDER / "components" / "autoscale" / "monitored.conf").read_text()
    assert f'"0.0.0.0:{monitor["containerPort"]}"' in monitored
    for _, one in manifests():
        if one["kind"] == "Service":
            target = ports[one["spec"]["selector"]["app.kubernetes.io/name"]]
            for port in one["spec"]["ports"]:
                assert target[port["targetPort"]] == port["port"]
        if one["kind"] == "NetworkPolicy":
            names = {port["port"] for rule in one["spec"]["ingress"] for port in rule["ports"]}
            assert names <= set(ports["nats"])
        if one["kind"] == "PodMonitor":
            target = ports[one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]]
            assert all(end["port"] in target for end in one["spec"]["podMetricsEndpoints"])
    for name, settings in (("gateway", gateway), ("worker", worker)):
        template = named("Deployment", name, f"base/{name}.yaml")["spec"]["template"]
        told = template["metadata"]["annotations"]["prometheus.io/port"]
        assert told == str(settings.metrics_port)


def routes() -> set[str]:
    app = FastAPI()
    register(app, None)  # type: ignore[arg-type]  # Nothing is asked of it.
    return {str(getattr(route, "path", "")) for route in app.routes}


def test_probes_ask_what_there_is_to_ask() -> None:
    known = routes()
    compose = (ROOT / "compose.yaml").read_text()
    for path, _, one in pods():
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = one.get(name, {})
            if "path" in probe.get("httpGet", {}):
                assert probe["httpGet"]["path"] in known, path
                assert probe["httpGet"]["port"] == "http"
            if "exec" not in probe:
                continue
            command = probe["exec"]["command"]
            if one["name"] == "worker":
                image = image_of(one).partition(":")[0]
                text = (ROOT / "deploy" / DOCKERFILES[image]).read_text()
                told = ", ".join(f'"{word}"' for word in command)
                assert f"CMD [{told}]" in text
                assert command[1:] == ["-m", healthcheck.__name__, "worker"]
            else:
                assert all(word in compose for word in command)
    ready = container("gateway")["readinessProbe"]["httpGet"]["path"]
    assert ready == "/health/ready"
    assert container("gateway")["livenessProbe"]["httpGet"]["path"] == "/health/live"


def image_of(one: Manifest) -> str:
    """A patch without an image keeps that of the base."""
    return str(one.get("image") or container(one["name"])["image"])


def test_a_worker_without_nats_is_not_restarted_at_once() -> None:
    probe = container("worker")["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600


def test_images_are_those_of_the_dockerfiles_and_of_compose() -> None:
    compose = (ROOT / "compose.yaml").read_text() + (ROOT / "compose.gpu.yaml").read_text()
    seen = set()
    for _, _, one in pods():
        name, _, tag = image_of(one).partition(":")
        seen.add(name)
        if name == "nats":
            assert f":-{name}:{tag}}}" in compose
        else:
            assert f"image: {name}:${{TAG:-{tag}}}" in compose
            assert f"deploy/{DOCKERFILES[name]}" in compose
    assert seen == {"nats", *DOCKERFILES}


def test_a_pod_has_time_for_its_drain() -> None:
    for name in PROCESSES:
        settings = settings_of(FOLDER / "base" / f"{name}.yaml", name)
        spec = named("Deployment", name, f"base/{name}.yaml")["spec"]["template"]["spec"]
        needed = settings.drain_grace + SETTLE_LIMIT
        if isinstance(settings, GatewaySettings):
            assert settings.drain_delay > 0, "endpoints are taken away only some time after SIGTERM"
            probe = spec["containers"][0]["readinessProbe"]
            assert probe["periodSeconds"] * probe["failureThreshold"] <= settings.drain_delay
            needed += settings.drain_delay
        assert spec["terminationGracePeriodSeconds"] >= needed + MARGIN


def test_nothing_runs_as_root_or_writes_its_image() -> None:
    for path, spec, one in pods():
        if path.parent != FOLDER / "base":
            assert "runAsUser" not in str(spec)
            continue
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if one["name"] in PROCESSES:
            text = (ROOT / "deploy" / f"{one['name']}.Dockerfile").read_text()
            assert f"USER {spec['securityContext']['runAsUser']}:" in text


def test_secrets_are_mounted_where_the_settings_look() -> None:
    compose = (ROOT / "compose.secure.yaml").read_text()
    for name in PROCESSES:
        path = FOLDER / "components" / "secure" / f"{name}.yaml"
        ((_, spec, one),) = (pod for pod in pods() if pod[0] == path)
        (mount,) = one["volumeMounts"]
        assert "subPath" not in mount, "a file mounted by itself never changes"
        assert spec["volumes"][0]["secret"]["secretName"] == name
        for variable, value in variables(one).items():
            assert f"{variable}: {value}\n" in compose
            if variable != "MILLSTREAM_NATS":
                assert value.startswith(f"{mount['mountPath']}/")
    patch = named("StatefulSet", "nats", "components/secure/nats.yaml")
    (one,) = patch["spec"]["template"]["spec"]["containers"]
    folder = one["volumeMounts"][0]["mountPath"]
    assert f'"{folder}/server.pem"' in (NATS / "secure.conf").read_text()


def triggers(overlay: str) -> list[Manifest]:
    """Of the ScaledObject that an overlay makes, its patches applied."""
    folder = FOLDER / "overlays" / overlay
    (kustomization,) = read(folder / "kustomization.yaml")
    (component,) = (
        name for name in kustomization["components"] if Path(name).name.startswith("autoscale")
    )
    (scaled,) = read(folder / component / "scaledobject.yaml")
    for patch in kustomization.get("patches", []):
        for change in read(folder / patch["path"])[0]:
            assert change["op"] == "replace"
            *way, last = change["path"].strip("/").split("/")
            place: Any = scaled
            for step in way:
                place = place[int(step) if step.isdigit() else step]
            assert last in place
            place[last] = change["value"]
    return list(scaled["spec"]["triggers"])


@pytest.mark.parametrize("overlay", ["autoscale", "gpu-autoscale"])
def test_the_queues_are_asked_for_by_their_names(overlay: str) -> None:
    model = bundled.NAME
    if overlay == "gpu-autoscale":
        worker = settings_of(FOLDER / "components" / "gpu" / "worker.yaml", "worker")
        assert isinstance(worker, WorkerSettings)
        assert worker.model is not None
        model = worker.model
        assert subjects.token(model) != model, "a name that has to be escaped"
    *queues, running = triggers(overlay)
    assert [queue["name"] for queue in queues] == list(subjects.CLASSES)
    for urgency, queue in enumerate(queues):
        assert queue["type"] == "nats-jetstream"
        assert queue["metadata"]["stream"] == subjects.stream_of(urgency)
        assert queue["metadata"]["consumer"] == subjects.consumer(model, urgency)
        account = queue["metadata"]["account"]
        assert f"  {account}: {{\n    jetstream: enabled" in (NATS / "nats.conf").read_text()
        assert f"  {account}: {{\n    jetstream: enabled" in (NATS / "roles.conf").read_text()
        host, _, port = queue["metadata"]["natsServerMonitoringEndpoint"].partition(":")
        service, namespace, _ = host.split(".")
        found = named("Service", service, "components/autoscale/monitor.yaml")
        assert found["spec"]["ports"][0]["port"] == int(port)
        (base,) = read(FOLDER / "base" / "kustomization.yaml")
        assert namespace == base["namespace"]
    assert running["type"] == "prometheus"
    assert f'{{model="{model}"}}' in running["metadata"]["query"]


@pytest.mark.parametrize("component", ["autoscale", "autoscale-prometheus"])
def test_scaling_keeps_one_worker_and_goes_down_slowly(component: str) -> None:
    scaled = named("ScaledObject", "worker", f"components/{component}/scaledobject.yaml")["spec"]
    assert scaled["scaleTargetRef"]["name"] == "worker"
    assert math.isfinite(REMEMBER), "while a model is forgotten, nothing may scale it to none"
    assert scaled["minReplicaCount"] >= 1
    advanced = scaled["advanced"]
    down = advanced["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    spec = named("Deployment", "worker", "base/worker.yaml")["spec"]["template"]["spec"]
    assert down["stabilizationWindowSeconds"] > spec["terminationGracePeriodSeconds"]
    names = {trigger["name"] for trigger in scaled["triggers"]}
    if "scalingModifiers" in advanced:
        assert set(advanced["scalingModifiers"]["formula"].split(" + ")) == names


def test_queries_are_of_metrics_that_there_are() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    queries = [
        trigger["metadata"]["query"]
        for _, one in manifests()
        if one["kind"] == "ScaledObject"
        for trigger in one["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    found = {name for query in queries for name in re.findall(r"millstream_\w+", query)}
    assert len(found) > 1
    for name in found:
        assert f"`{name.removesuffix('_bucket')}`" in text


def test_the_documents_examples_are_yaml_and_lead_somewhere() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    own = yaml.safe_load(example)
    assert all((ROOT / "deploy" / "mine" / name).resolve().exists() for name in listed(own))
    assert {image["name"] for image in own["images"]} <= set(DOCKERFILES)
    for name in re.findall(r"deploy/kubernetes/[\w./-]*\w", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"components/[\w./-]*\w", text):
        assert (FOLDER / name).exists(), name
    for one in FOLDER.glob("*/*"):
        if one.parent.name in ("overlays", "components"):
            assert one.name in text


@pytest.mark.parametrize("folder", BUILT, ids=lambda folder: folder.name)
def test_kustomize_builds_it(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    told = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "KUBECONFIG": os.devnull},
    )
    assert told.returncode == 0, told.stderr
    built = [one for one in yaml.safe_load_all(told.stdout) if one]
    spaces = {one["metadata"].get("namespace") for one in built if one["kind"] != "Namespace"}
    assert spaces == {"millstream"}
    (config,) = (one for one in built if one["kind"] == "ConfigMap")
    assert config["data"]["limits.conf"] == (NATS / "limits.conf").read_text()
    (nats,) = (one for one in built if one["kind"] == "StatefulSet")
    (volume,) = (
        volume
        for volume in nats["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "config"
    )
    assert volume["configMap"]["name"] == config["metadata"]["name"]
