"""Settings: where each value comes from, what is refused, what is warned about, what is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.exits import ConfigurationError
from gateway.flags import as_rows, options
from gateway.settings import JUPYTERLAB_COMMAND, NO_FLAG, Settings, executable, origin
from gateway.sources import load, shown, without_credentials


def test_nothing_is_needed() -> None:
    loaded = load({}, {})
    assert loaded.settings.port == 8000
    assert loaded.settings.public_url == "http://localhost:8000"
    assert loaded.settings.snapshots == ".ide-gateway/snapshots"
    assert loaded.warnings == ()
    assert loaded.changed() == []
    assert set(loaded.sources) == set(Settings.model_fields)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ide.toml"
    file.write_text('slots = 2\nidle-timeout = 20\nretention = 200\ndomain = "ide.example.com"\n')
    environ = {"IDE_GATEWAY_SLOTS": "3", "IDE_GATEWAY_IDLE_TIMEOUT": "30"}
    loaded = load({"slots": 4}, environ, str(file))
    assert (loaded.settings.slots, loaded.sources["slots"]) == (4, "flag --slots")
    assert loaded.settings.idle_timeout == 30.0
    assert loaded.sources["idle_timeout"] == "environment IDE_GATEWAY_IDLE_TIMEOUT"
    assert loaded.settings.retention == 200.0
    assert loaded.sources["retention"] == f"file {file}"
    assert loaded.settings.public_url == "https://ide.example.com"
    assert loaded.changed() == ["domain", "idle_timeout", "retention", "slots"]


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "ide.toml"
    file.write_text("port = 9000\n")
    assert load({}, {"IDE_GATEWAY_CONFIG": str(file)}).settings.port == 9000


@pytest.mark.parametrize(("text", "words"), [(None, "cannot read"), ("port = ", "not valid TOML")])
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "ide.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load({}, {}, str(file))


def test_misspelt_names_are_warned_about(tmp_path: Path) -> None:
    file = tmp_path / "ide.toml"
    file.write_text("idel_timeout = 3\n")
    loaded = load({}, {"IDE_GATEWAY_IDEL_TIMEOUT": "3", "IDE_GATEWAY_XYZZY": "1"}, str(file))
    assert loaded.settings.idle_timeout == 3600
    assert loaded.warnings == (
        f"unknown setting idel_timeout in {file}; did you mean idle_timeout?",
        "unknown setting IDE_GATEWAY_IDEL_TIMEOUT; did you mean IDE_GATEWAY_IDLE_TIMEOUT?",
        "unknown setting IDE_GATEWAY_XYZZY",
    )


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load({}, {"IDE_GATEWAY_PORT": ""}).sources["port"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", 70000, "port = '70000' (flag --port): must be less than or equal to 65535"),
        ("slots", 0, "slots = '0' (flag --slots): must be greater than or equal to 1"),
        ("idle_timeout", 0, "idle_timeout = '0' (flag --idle-timeout): must be greater than 0"),
        ("idle_timeout", "nan", "must be a finite number"),
        ("idle_timeout", "soon", "must be a valid number"),
        ("retention", -1, "must be greater than or equal to 0"),
        ("code_ttl", 31, "must be less than or equal to 30"),
        ("lifecycle", "yes", "must be 'on' or 'off'"),
        ("domain", "http://x", "must be a host name"),
        ("domain", "a_b.example", "must be a host name"),
        ("public_url", "https://ide.example.com/path", "without a path"),
        ("public_url", "https://localhost:99999", "out of range"),
        ("redis_url", "http://h", "must start with redis://"),
        ("workspace_command", "ide --port {prot}", "{prot} is never filled in"),
        ("workspace_command", "ide", "must hand {port} to the IDE"),
        ("workspace_command", "PORT={port}", "must name a program"),
        ("workspace_command", "ide '{port}", "No closing quotation"),
        ("workspace_ready_path", "api", "must be a path"),
        ("workspace_upstream_header", "X: a\r\nY: b", "in one line"),
        ("metrics_token", "two words", "without spaces"),
        ("webhook_url", "ftp://x", "must start with http"),
        ("webhook_url", "https://me:pw@hooks.example", "must hold no password"),
        ("webhook_secret", "whsec_c2hvcnQ=", "24 to 64 bytes in base64"),
        ("webhook_secret", "A" * 32, "must begin with whsec_"),
        ("smtp_url", "mail.example:25", "must look like smtp://"),
        ("smtp_url", "smtp://mail.example:99999", "out of range"),
        ("mail_from", "IDE", "must be an address"),
        ("mail_from", "a@b.example\r\nBcc: c@d.example", "must be an address"),
        ("snapshots", "gs://bucket", "must be a directory, or s3://BUCKET"),
        ("snapshots", "s3://", "'' is no bucket's name"),
        ("snapshots", "s3://Bucket/x", "'Bucket' is no bucket's name"),
        ("snapshots", "s3://bucket/a/../b", "a prefix is of letters"),
        ("snapshots", "s3://bucket/a?key=b", "must be s3://BUCKET"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({name: value}, {})
    assert words in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"ping_interval": 90}, "--ping-interval 90 must be below --session-timeout 90"),
        ({"public_url": "https://ide.example.com"}, "but --domain is localhost"),
        ({"warm_slots": 51}, "--warm-slots 51 can never be free"),
        ({"launch_burst": 0}, "--launch-burst 0 and --launch-rate 2 bound launches together"),
        ({"wait_cost": 0.1}, "--wait-cost needs --prices"),
        ({"wait_cost": 0.1, "prices": "p.toml", "wait_probability": 0}, "set it above 0"),
        ({"move_after": 60, "slots": 1}, "--move-after empties machines that others work on"),
        ({"standby_machines": 1, "pool": "ecs"}, "--standby-machines needs machines that can be"),
        ({"webhook_url": "https://hooks.example"}, "needs --webhook-secret.*openssl rand"),
        ({"smtp_url": "smtp://mail.example"}, "--smtp-url needs --mail-from"),
    ],
)
def test_a_contradiction_is_refused(flags: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load(flags, {})


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"slots": 0}, {"IDE_GATEWAY_PORT": "x"})
    message = str(caught.value)
    assert message.startswith("2 settings are wrong")
    assert "(flag --slots)" in message
    assert "(environment IDE_GATEWAY_PORT)" in message


def test_what_belongs_to_jupyterlab_comes_with_its_command_only() -> None:
    loaded = load({}, {})
    assert loaded.settings.workspace_command == JUPYTERLAB_COMMAND
    assert loaded.settings.workspace_ready_path == "/api"
    assert loaded.settings.workspace_upstream_header == "Authorization: token {secret}"
    assert loaded.sources["workspace_ready_path"] == "default for JupyterLab"
    other = load({"workspace_command": "code-server --port {port}"}, {}).settings
    assert (other.workspace_ready_path, other.workspace_upstream_header) == ("", "")
    assert load({"workspace_ready_path": ""}, {}).settings.workspace_ready_path == ""


def test_the_port_that_was_taken_becomes_part_of_the_address() -> None:
    assert load({"port": 0}, {}).with_port(8123).settings.public_url == "http://localhost:8123"
    assert load({}, {}).with_port(80).settings.public_url == "http://localhost"
    fixed = load({"port": 0, "public_url": "https://localhost"}, {}).with_port(8123)
    assert (fixed.settings.public_url, fixed.settings.port) == ("https://localhost", 8123)
    named = load({"port": 0, "domain": "IDE.example.com"}, {}).with_port(8123)
    assert named.settings.public_url == "https://ide.example.com"


def test_an_origin_leaves_out_the_schemes_own_port() -> None:
    assert origin("https://ide.example.com:443/") == "https://ide.example.com"
    assert origin("http://ide.example.com:443") == "http://ide.example.com:443"


def test_listening_for_others_without_a_name_is_doubted() -> None:
    (warning,) = load({"host": "0.0.0.0"}, {}).warnings
    assert "set --domain" in warning
    assert load({"host": "0.0.0.0", "domain": "ide.example.com"}, {}).warnings == ()


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2hunter2\n")
    environ = {
        "IDE_GATEWAY_API_KEY_FILE": str(file),
        "IDE_GATEWAY_REDIS_URL": "redis://me:hunter2@10.0.0.5:6379/1?password=hunter2",
    }
    loaded = load({"metrics_token": "hunter2"}, environ)
    assert loaded.settings.api_key == "hunter2hunter2"
    assert loaded.sources["api_key"] == "environment IDE_GATEWAY_API_KEY_FILE"
    assert "hunter2" not in str(as_rows(loaded))
    assert shown("redis_url", loaded.settings.redis_url) == "redis://10.0.0.5:6379/1"
    with pytest.raises(ConfigurationError) as caught:
        load({"metrics_token": "hunter2 hunter2"}, {})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="both set"):
        load({}, {**environ, "IDE_GATEWAY_API_KEY": "x"})
    with pytest.raises(ConfigurationError, match="cannot read"):
        load({}, {"IDE_GATEWAY_API_KEY_FILE": str(tmp_path / "none")})


def test_a_password_is_never_part_of_a_shown_url() -> None:
    for url in ("unix://:hunter2@/run/x.sock?db=0", "rediss://:hunter2@[::1]:6379", "redis://[:x"):
        assert "hunter2" not in without_credentials(url)


def test_the_record_is_frozen_and_travels_as_json() -> None:
    settings = load({"idle_timeout": 5}, {}).settings
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_every_setting_has_a_flag_a_type_and_a_description() -> None:
    flags = {option.name for option in options()}
    assert flags == {*Settings.model_fields, "config"} - NO_FLAG
    assert all(field.description for field in Settings.model_fields.values())


def test_the_program_of_a_command_comes_after_its_environment() -> None:
    assert executable(JUPYTERLAB_COMMAND) == "jupyter-lab"
    assert executable("A=1 B='x y' /opt/my ide {port}") == "/opt/my"
