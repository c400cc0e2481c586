"""Settings: read once, checked, and told apart from what somebody mistyped."""

from pathlib import Path

import pytest

from server.config import SETTINGS, Config, ConfigError, unknown_variables

SECRET = "x" * 32


def test_without_a_variable_every_setting_has_its_default() -> None:
    config = Config.from_env({"WORKLEASE_LOG_LEVEL": "", "HOME": "/nowhere"})
    assert (config.host, config.port, config.workers) == ("127.0.0.1", 8000, 1)
    assert config.data_dir == Path("~/.worklease").expanduser()
    assert config.url == "http://127.0.0.1:8000"
    assert config.log_level == "info"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKLEASE_PORT", "99999"),
        ("WORKLEASE_WORKERS", "two"),
        ("WORKLEASE_SWEEP_SECONDS", "nan"),
        ("WORKLEASE_MIGRATE", "perhaps"),
        ("WORKLEASE_SECRET", "short"),
        ("WORKLEASE_ADMIN_KEY", "contains spaces, which it may not"),
        ("WORKLEASE_PUBLIC_URL", "example.com"),
        ("WORKLEASE_CORS_ORIGINS", "https://example.com/path"),
        ("WORKLEASE_TRUSTED_PROXIES", "10.0.0.0/8, nowhere"),
        ("WORKLEASE_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Config.from_env({name: value})


def test_a_refusal_and_a_representation_never_show_a_secret() -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_env({"WORKLEASE_SECRET": "hunter2"})
    assert "hunter2" not in str(refused.value)
    url = "postgresql://me:hunter2@db/worklease"
    config = Config.from_env({"DATABASE_URL": url, "WORKLEASE_SECRET": SECRET})
    assert "hunter2" not in repr(config)
    assert SECRET not in repr(config)


def test_a_database_of_your_own_needs_the_secret_that_all_servers_share() -> None:
    with pytest.raises(ConfigError, match="WORKLEASE_SECRET"):
        Config.from_env({"DATABASE_URL": "postgresql://db/worklease"})


def test_lists_are_split_at_commas() -> None:
    given = {
        "WORKLEASE_CORS_ORIGINS": "https://a.example, http://localhost:3000",
        "WORKLEASE_TRUSTED_PROXIES": "10.0.0.0/8,::1",
    }
    config = Config.from_env(given)
    assert config.cors_origins == ("https://a.example", "http://localhost:3000")
    assert [str(network) for network in config.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


def test_a_mistyped_name_is_reported_with_the_one_probably_meant() -> None:
    strange = unknown_variables({"WORKLEASE_WORKER": "4", "WORKLEASE_URL": "x", "OTHER": "y"})
    assert strange == [("WORKLEASE_WORKER", "WORKLEASE_WORKERS")]


def test_what_kubernetes_sets_for_a_service_is_ignored() -> None:
    injected = {
        "WORKLEASE_PORT": "tcp://10.0.0.1:8000",
        "WORKLEASE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "WORKLEASE_SERVICE_HOST": "10.0.0.1",
    }
    assert Config.from_env(injected).port == 8000
    assert unknown_variables(injected) == []


def test_every_setting_says_what_it_means() -> None:
    assert all(setting.meaning and setting.default for setting in SETTINGS)
