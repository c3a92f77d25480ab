"""The images of examples/migration, before and after: what docs/how-to says of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from engine import PATIENCE, ROOT, Container

MIGRATION = ROOT / "examples/migration"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(scope="session")
def build(engine):
    """Builds an example's image, as its Dockerfile says."""

    def build(dockerfile: str, **arguments: str) -> str:
        return engine.build(str(MIGRATION / dockerfile), context=MIGRATION / Path(dockerfile).parts[0], **arguments)

    return build


@pytest.fixture
def run(engine):
    """Starts a container, with variables as keyword arguments."""
    started = []

    def run(image: str, *command: str, **environ: str) -> Container:
        options = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
        started.append(Container(engine, image, *command, options=options))
        return started[-1]

    yield run
    for container in started:
        engine("rm", "--force", "--volumes", container.id)


def ask(container: Container, port: int) -> str:
    """What the web application answers; it waits for one that listens, but is still starting."""
    return container.exec("python3", "-c", f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}').read())")


def has_line(lines: list[str], pattern: str) -> bool:
    return any(re.search(pattern, line) for line in lines)


# From a bare CMD.


@pytest.fixture(scope="session")
def application(build, base):
    return build("from-cmd/before/Dockerfile", BASE_IMAGE=base)


@pytest.fixture(scope="session")
def application_with_services(engine, build, application):
    with_ginit = engine.build("docker/legacy.Dockerfile", BASE_IMAGE=application)
    return build("from-cmd/after/Dockerfile", BASE_IMAGE=with_ginit)


def await_application(container):
    container.wait_for_line("Listening at", "stderr")
    assert "hello" in ask(container, 8000)
    container.wait_for_line("job 1 is done")


def kill_worker(engine, container):
    """Returns when it's gone, or the container with it."""
    kill = "pkill -KILL -f '[p]ython worker.py'; while pgrep -f '[p]ython worker.py'; do sleep 0.05; done"
    engine("exec", container.id, "sh", "-c", kill, check=False)


def test_before_a_shell_that_waits_keeps_the_stop_from_its_programs(run, application):
    container = run(application)
    await_application(container)
    assert container.stop("--time", "1") == 137
    assert not has_line(container.stderr(), "Handling signal: term")
    assert not has_line(container.stdout(), "the worker leaves")


def test_before_exec_helps_one_program_and_the_other_is_killed(run, application):
    script = (MIGRATION / "from-cmd/before/start.sh").read_text().replace("\ngunicorn", "\nexec gunicorn")
    container = run(application, "sh", "-c", script)
    await_application(container)
    assert container.stop("--time", "60") == 0
    assert has_line(container.stderr(), "Shutting down: Master")
    assert not has_line(container.stdout(), "the worker leaves")


def test_before_nobody_notices_that_the_worker_is_dead(engine, run, application):
    container = run(application)
    await_application(container)
    kill_worker(engine, container)
    assert "worker.py" not in engine("top", container.id)
    assert "hello" in ask(container, 8000)


def test_with_services_everything_is_stopped_gracefully(run, application_with_services):
    container = run(application_with_services)
    await_application(container)
    assert container.stop("--time", "60") == 0
    assert has_line(container.stderr(), f"^{TIME} web/run: .*Shutting down: Master")
    assert has_line(container.stdout(), f"^{TIME} worker/run: the worker leaves, no job is lost$")


def test_with_services_a_dead_worker_ends_the_container(engine, run, application_with_services):
    container = run(application_with_services)
    await_application(container)
    kill_worker(engine, container)
    assert container.wait() == 3
    assert has_line(container.stderr(), "ginit: warn: worker/run: was ended by SIGKILL \\(PID ")
    assert has_line(container.stderr(), "web/run: .*Shutting down: Master")


def test_with_services_the_application_has_its_user_and_its_gevent(run, application_with_services):
    container = run(application_with_services)
    await_application(container)
    assert container.exec("python", "-c", "import gevent, os; print(gevent.__version__, os.getuid())").strip() == "23.9.1 1000"


# From supervisord.


@pytest.fixture(scope="session")
def supervised(build, base):
    return build("from-supervisord/before/Dockerfile", BASE_IMAGE=base)


@pytest.fixture(scope="session")
def supervised_no_more(build, image):
    return build("from-supervisord/after/Dockerfile", BASE_IMAGE=image)


def await_programs(container):
    container.wait_for_line("start worker processes", "stderr")
    container.wait_for_line("waiting for jobs")
    assert "hello" in ask(container, 8080)
    assert container.exec("ps", "-C", "python3", "-o", "user=").strip() == "www-data"


def break_worker(engine, container):
    """From now on it can't work. The container may be gone before the command is."""
    engine("exec", container.id, "rm", "-r", "/var/spool/jobs", check=False)


def test_before_supervisord_lives_on_when_a_program_dies_for_good(engine, run, supervised):
    container = run(supervised)
    await_programs(container)
    break_worker(engine, container)
    container.wait_for_line("gave up: worker entered FATAL state")
    assert "hello" in ask(container, 8080)


def test_after_supervisord_a_program_that_dies_ends_the_container(engine, run, supervised_no_more):
    container = run(supervised_no_more)
    await_programs(container)
    break_worker(engine, container)
    assert container.wait() == 3
    assert has_line(container.stdout(), f"^{TIME} worker/run: FileNotFoundError")  # its stderr is its stdout
    assert has_line(container.stderr(), "ginit: warn: worker/run: ended with status 1 \\(PID ")


def test_before_supervisord_s_lines_are_nobody_s(run, supervised):
    container = run(supervised)
    await_programs(container)
    container.exec("touch", "/var/spool/jobs/letter")
    assert container.wait_for_line("is done") == ["letter is done"]


def test_after_supervisord_lines_have_name_and_time(run, supervised_no_more):
    container = run(supervised_no_more)
    await_programs(container)
    container.exec("touch", "/var/spool/jobs/letter")
    (line,) = container.wait_for_line("is done")
    assert re.fullmatch(f"{TIME} worker/run: letter is done", line)


def test_after_supervisord_each_program_gets_its_own_signal(run, supervised_no_more):
    container = run(supervised_no_more)
    await_programs(container)
    assert container.stop("--time", "60") == 0
    assert has_line(container.stderr(), "web/run: .*gracefully shutting down")
    assert has_line(container.stdout(), "worker/run: the worker leaves, no job is lost")


def test_numprocs_are_links_to_a_directory_that_is_no_service(services, start):
    services.add(".worker", 'echo "{\\"worker\\":${GINIT_SERVICE##*-}}"; exec sleep 1000')
    for number in "12":
        (services.path / f"worker-{number}").symlink_to(".worker")
    container = start()
    container.wait_for_line('{"worker":1,"service":"worker-1",')
    container.wait_for_line('{"worker":2,"service":"worker-2",')


def test_stopasgroup_is_a_session_of_its_own(services, start):
    child = """trap 'echo "{\\"child\\":\\"told\\"}"; exit' TERM; echo '{"child":"ready"}'; while :; do sleep 0.1; done"""
    parent = f"trap : TERM\n({child}) &\nwait\nwait"  # it stays for as long as its child does
    services.add("web", "exec setsid ./parent", terminate='kill -s TERM -- "-$GINIT_PID"', parent=parent)
    container = start()
    container.wait_for_line('"ready"')
    assert container.stop("--time", "60") == 0
    assert has_line(container.stdout(), '"told"')
    assert not has_line(container.stderr(), "ginit:")  # terminate didn't fail, and no process was left behind


# From dinit.


@pytest.fixture(scope="session")
def dinit(engine, tmp_path_factory):
    """An image that has dinit as /dinit.

    It's skipped without one in CI, too: dinit isn't packaged, by Debian or anybody else, and can't be installed there.
    """
    program = shutil.which("dinit")
    # Another service manager has the name, too.
    if program is None or b"DINIT_REPARENTING_POLICY" not in Path(program).read_bytes():
        pytest.skip("tozd/dinit isn't on the path")
    context = tmp_path_factory.mktemp("dinit")
    shutil.copy(program, context / "dinit")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY dinit /dinit\n")
    return engine.build(str(context / "Dockerfile"), context=context)


@pytest.fixture(scope="session")
def with_dinit(build, base, dinit):
    return build("from-dinit/before/Dockerfile", BASE_IMAGE=base, DINIT_IMAGE=dinit)


@pytest.fixture(scope="session")
def with_dinit_no_more(build, image):
    return build("from-dinit/after/Dockerfile", BASE_IMAGE=image)


@pytest.fixture(params=["with_dinit", "with_dinit_no_more"])
def either(request):
    """What follows holds for both."""
    return request.getfixturevalue(request.param)


def test_dinit_s_variables_are_honoured(run, either):
    container = run(either)
    (line,) = container.wait_for_line("the worker is there")
    assert re.fullmatch(f"{TIME} worker/run: worker: the worker is there", line)  # DINIT_DIR, DINIT_JSON_STDOUT
    container.wait_for_line("Serving HTTP")
    assert "hello" in ask(container, 8000)
    container.wait_for_line("disabled itself", "stderr")  # DINIT_LOG_LEVEL
    container.wait_for_line("SIGKILL", "stderr")  # DINIT_KILL_TIMEOUT
    assert has_line(container.stderr(), f"^{TIME} [dg]init: warn(ing)?: sh/[0-9]+: terminating a? ?reparented")


def test_dinit_s_terminate_finds_the_process(run, either):
    container = run(either)
    container.wait_for_line("Serving HTTP")
    assert "hello" in ask(container, 8000)
    container.wait_for_line("the worker is there")
    assert container.stop("--time", "60") == 0
    assert has_line(container.stdout(), "web/run: Keyboard interrupt received, exiting.")


def test_after_dinit_the_last_line_is_there(run, with_dinit_no_more):
    container = run(with_dinit_no_more)
    container.wait_for_line("the worker is there")
    assert container.stop("--time", "60") == 0
    assert has_line(container.stdout(), "worker/run: worker: the worker leaves")


def test_after_dinit_its_policy_is_honoured(run, with_dinit_no_more):
    container = run(with_dinit_no_more, DINIT_REPARENTING_POLICY="adopt")
    container.wait_for_line("adopting a reparented process: sh -c", "stderr")


def test_after_dinit_json_is_asked_for_as_before(run, with_dinit_no_more):
    container = run(with_dinit_no_more, DINIT_JSON_STDOUT="1")
    container.wait_for_line("worker/run: not JSON on stdout: worker: the worker is there", "stderr")


# From runit.


@pytest.fixture(scope="session")
def runit(engine, base):
    context = MIGRATION / "from-runit/before"
    return engine.build(str(context / "Dockerfile"), context=context, BASE_IMAGE=base)


@pytest.fixture(scope="session")
def runit_with_ginit(engine, runit):
    return engine.build("docker/runit.Dockerfile", BASE_IMAGE=runit)


def await_jobs(container, least: int = 1) -> int:
    """Wait until the application has done so many jobs, and return how many."""
    ask = f"exec 2>&-; until [ $(redis-cli get jobs || echo 0) -ge {least} ]; do sleep 0.1; done; redis-cli get jobs"
    return int(container.exec("timeout", str(PATIENCE), "sh", "-c", ask))


def test_before_the_database_is_killed_when_runsvdir_leaves(engine, run, runit):
    container = run(runit)
    await_jobs(container, 5)
    assert container.stop("--time", "60") == 0
    engine("start", container.id)
    assert await_jobs(container) < 5


def test_in_runsvdir_s_place_everything_is_stopped_and_waited_for(engine, run, runit_with_ginit):
    container = run(runit_with_ginit)
    done = await_jobs(container, 5)
    assert container.stop("--time", "60") == 0
    assert has_line(container.stdout(), f"^{TIME} db/run: .*DB saved on disk")
    engine("start", container.id)
    assert await_jobs(container) >= done


def test_in_runsvdir_s_place_sv_works_and_run_scripts_that_count_on_it(run, runit_with_ginit):
    container = run(runit_with_ginit)
    await_jobs(container)
    status = container.exec("sv", "status", "app", "db", "report")
    assert re.search(r"(?m)^run: app: \(pid \d+\) \d+s; run: log: \(pid \d+\) \d+s$", status)
    assert re.search(r"(?m)^run: db: \(pid \d+\) \d+s$", status)
    assert re.search(r"(?m)^down: report: \d+s$", status)
    container.exec("sv", "once", "report")
    container.wait_for_line("report/run: ")
    assert container.exec("sv", "-w", "20", "restart", "app").startswith("ok: run: app: ")
    assert "has ended: -1 15" in container.exec("cat", "/var/log/app/current")
    # As images do it that stop their services themselves.
    container.exec("sh", "-c", "sv -w 30 force-stop /etc/service/*")
    status = container.exec("sh", "-c", "sv status /etc/service/*")
    assert all(line.startswith("down: ") for line in status.splitlines())
    assert {"app", "db", "report"} <= set(re.findall("(?m)^down: /etc/service/(\\S+): ", status))
    assert container.stop("--time", "60") == 0


def test_an_image_s_user_may_be_another_than_root(engine, runit, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        f"FROM {runit}\nRUN chown -RH 1000 /etc/service /data /var/log/app\nUSER 1000\nSTOPSIGNAL SIGHUP\n"
    )
    for buildkit in (True, False):
        with_user = engine.build(str(tmp_path / "Dockerfile"), context=tmp_path)
        image = engine.build("docker/runit.Dockerfile", buildkit=buildkit, BASE_IMAGE=with_user)
        container = Container(engine, image)
        try:
            await_jobs(container, 2)
            assert container.exec("sv", "status", "db").startswith("run: db: ")
            assert container.stop("--time", "60") == 0
        finally:
            engine("rm", "--force", "--volumes", container.id)
