"""The images of docker/: built by both builders, small, and as they say."""

from __future__ import annotations

import json
import subprocess

import pytest
from engine import Container


@pytest.mark.parametrize("buildkit", [True, False], ids=["BuildKit", "the classic builder"])
def test_the_image_has_ginit_and_nothing_of_its_making(engine, base, buildkit):
    image = engine.build("docker/Dockerfile", buildkit=buildkit, BASE_IMAGE=base)
    (found,) = json.loads(engine("inspect", image))
    (below,) = json.loads(engine("inspect", base))
    assert found["Config"]["Entrypoint"] == ["ginit"]
    assert found["Config"]["StopSignal"] == "SIGTERM"
    assert found["Config"]["Labels"]["org.opencontainers.image.title"] == "ginit"
    assert found["Size"] - below["Size"] < 40_000_000
    shell = ("run", "--rm", "--entrypoint", "sh", image, "-c")
    assert engine(*shell, "ls -d /wheels /build /source /root/.cache 2>/dev/null || true").strip() == ""
    assert engine(*shell, "command -v python3").strip() == "/usr/bin/python3"


def test_without_a_service_it_says_so(engine, image):
    container = Container(engine, image)
    assert container.wait() == 0
    assert "there is no service in /etc/service" in container.stderr()[-1]


def test_arguments_are_ginit_s(engine, image):
    assert engine("run", "--rm", image, "--version").startswith("ginit ")


@pytest.fixture(scope="session")
def legacy(engine, base, tmp_path_factory):
    """An application's image with an old gevent of its own, and ginit on top."""
    context = tmp_path_factory.mktemp("legacy")
    (context / "Dockerfile").write_text(
        f"""FROM {base}
RUN python3 -m venv /app && /app/bin/pip install --quiet --no-cache-dir gevent==22.10.1 'setuptools<80'
ENV PATH=/app/bin:$PATH PYTHONPATH=/srv GEVENT_RESOLVER=thread
COPY signal.py /srv/signal.py
USER 1000
WORKDIR /srv
CMD ["python", "-c", "import gevent; print(gevent.__version__)"]
"""
    )
    (context / "signal.py").write_text("raise SystemExit('the application has a module of that name')\n")
    application = engine.build(str(context / "Dockerfile"), context=context)
    return engine.build("docker/legacy.Dockerfile", BASE_IMAGE=application)


#: Adds a service that says which gevent it gets, and as whom, and starts ginit.
ASK = """mkdir -p /tmp/service/web
cat >/tmp/service/web/run <<'END'
#!/bin/sh
exec python -I -c 'import gevent, os, sys; print(gevent.__version__, os.getuid(), sys.prefix)'
END
chmod +x /tmp/service/web/run
exec /opt/ginit/bin/ginit /tmp/service
"""


def test_an_application_s_packages_are_neither_changed_nor_used(engine, legacy):
    run = ("run", "--rm", "--env", "GINIT_JSON_STDOUT=0", "--entrypoint")
    assert engine(*run, "sh", legacy, "-c", ASK, stderr=subprocess.DEVNULL).rstrip().endswith("web/run: 22.10.1 1000 /app")
    own = engine(*run, "/opt/ginit/bin/python", legacy, "-I", "-c", "import gevent; print(gevent.__version__)")
    assert own.strip() != "22.10.1"
