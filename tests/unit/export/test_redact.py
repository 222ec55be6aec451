# SPDX-License-Identifier: Apache-2.0
"""Secrets do not leave the agent; what is no secret stays readable."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.export.escape import arguments, escape
from ringfence.export.redact import HIDDEN, Redactor
from ringfence.export.redact_words import FORMS, HINT, is_secret
from ringfence.export.shell_words import commands
from tests.support.receivers import alert

SECRET = "hunter2hunter2"
LONG = "".join(f"s{number:04}" for number in range(180))  # 900 characters, no two pieces alike


@pytest.mark.parametrize(
    "words",
    [
        ["mysql", "--password=" + SECRET], ["mysql", "--password", SECRET], ["mysql", "-p" + SECRET],
        ["env", "DB_PASSWORD=" + SECRET, "app"], ["env", "AWS_SECRET_ACCESS_KEY=" + SECRET],
        ["env", "PGPASSWORD=" + SECRET, "psql"], ["app", "dbPassword=" + SECRET],
        ["app", "-DdbPass=" + SECRET],
        ["env", "SECRET_KEY_BASE=" + SECRET], ["env", "SSHPASS=" + SECRET], ["env", "MYSQL_PWD=" + SECRET],
        ["app", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=" + SECRET + "==;EndpointSuffix=x"],
        ["app", "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=" + SECRET],
        ["app", "Server=db;User Id=sa;Pwd=" + SECRET],
        ["curl", "-H", "Authorization: Bearer " + SECRET], ["curl", "-u", "me:" + SECRET, "http://h/"],
        ["curl", "-H", "Authorization: Token " + SECRET], ["curl", "-H", "Authorization: " + SECRET],
        ["curl", "-H", "Authorization:Digest u=x, r=" + SECRET], ["curl", "-HAuthorization: x " + SECRET],
        ["curl", "-H", "Cookie: a=1; session=" + SECRET], ["curl", "-H", "X-Api-Key: " + SECRET],
        ["curl", "-H", "X-Vault-Token: " + SECRET], ["curl", "-b", "session=" + SECRET],
        ["curl", "-ume:" + SECRET], ["curl", "--user=me:" + SECRET], ["curl", "--proxy-user", "me:" + SECRET],
        ["curl", "https://me:" + SECRET + "@host/x"], ["curl", "http://h/?api_key=" + SECRET + "&x=1"],
        ["curl", "https://a.blob/x?sv=1&sig=" + SECRET + "%3D&se=2"],
        ["curl", "https://" + SECRET * 2 + "@h/"],
        ["psql", "postgres://u:p@" + SECRET + "@h/db"], ["psql", "host=h password=" + SECRET + " dbname=x"],
        ["amqp", "amqps://u:" + SECRET + "/p@h:5671/v"],
        ["vault", "login", "token=" + SECRET], ["app", "--api-key", SECRET],
        ["app", "--client-secret=" + SECRET], ["app", "--password", "-" + SECRET],
        ["app", "-password", SECRET],
        ["app", "--from-literal=password=" + SECRET], ["app", "--set", "a=b,db.password=" + SECRET + ",c=d"],
        ["keytool", "-storepass", SECRET, "-keypass", SECRET], ["gpg", "--passphrase", SECRET],
        ["docker", "login", "-u", "me", "-p", SECRET, "registry"], ["podman", "login", "-p" + SECRET, "r"],
        ["redis-cli", "-h", "h", "-a", SECRET, "ping"], ["/usr/bin/redis-cli", "-a", SECRET],
        ["ldapsearch", "-D", "cn=x", "-w", SECRET], ["ldapsearch", "-w" + SECRET], ["sshpass", "-p", SECRET],
        ["mongosh", "-u", "me", "-p", SECRET], ["openssl", "enc", "-k", SECRET],
        ["zip", "-P", SECRET, "x.zip"],
        ["openssl", "rsa", "-passin", "pass:" + SECRET], ["smbclient", "-U", "me%" + SECRET, "//h/x"],
        ["sudo", "-u", "x", "redis-cli", "-a", SECRET], ["docker", "exec", "c", "mysql", "-p" + SECRET],
        ["aws", "configure", "set", "aws_secret_access_key", SECRET],
        ["npm", "config", "set", "_authToken", SECRET],
        ["app", '{"password": "' + SECRET + '"}'], ["app", '{"password":"' + SECRET + '","x":1}'],
        ["app", '{"auth": {"token" : "' + SECRET + '"}}'], ["app", "password: " + SECRET],
    ],
)  # fmt: skip
def test_arguments_lose_their_secrets(words: list[str]) -> None:
    """Each of the usual ways to hand one over."""
    shown = Redactor().arguments(words)
    assert SECRET not in " ".join(shown)
    assert HIDDEN in " ".join(shown)
    assert shown[0] == words[0]
    assert len(shown) == len(words)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["app", "--password=a1b,c2d;e3f&g4h"], ["a1b", "c2d", "e3f", "g4h"]),
        (["app", "--password=correct horse"], ["correct", "horse"]),
        (["app", "--set=password=correct horse"], ["correct", "horse"]),
        (["app", "--password", "correct horse"], ["correct", "horse"]),
        (["app", "PASSWORD='a1b c2d'"], ["a1b", "c2d"]),
        (["app", "--password=\"a1b\" 'c2d'"], ["a1b", "c2d"]),
        (["app", '{"password": "correct horse"}'], ["correct", "horse"]),
        (["app", "--password=" + LONG], [LONG[:10], LONG[500:520], LONG[-10:]]),
        (["app", "Authorization: Bearer " + LONG], [LONG[:10], LONG[500:520], LONG[-10:]]),
        (["app", "https://u:" + LONG + "@h"], [LONG[:10], LONG[500:520], LONG[-10:]]),
        (["psql", "postgres://u:p1a@s2s@h3st/x"], ["p1a", "s2s"]),
        (["app", "--password=a1\\\\b2"], ["a1", "b2"]),
    ],
)
def test_the_whole_of_a_value_is_hidden(words: list[str], parts: list[str]) -> None:
    """Whatever signs, blanks or quotes are in it, and however long it is."""
    shown = " ".join(Redactor().arguments(words))
    assert not [part for part in parts if part in shown], shown


SCRIPTS = [
    "export GITHUB_TOKEN={}; run", "foo --password {} --verbose", "foo --password={} && bar",
    "curl -u me:{} http://h/", "mysql -p{} -e 'select 1' < x", "PGPASSWORD={} psql -h db",
    "PASSWORD='a {}' run", 'PASSWORD="{} b" run', "curl -H 'Authorization: Token {}' http://h",
    'curl -H "Cookie: a=b; c={}" http://h', "echo x | docker login -u me -p {} r",
    "cd /x\\nredis-cli -a {}\\nls", "(ldapsearch -x -w {})", "echo `mysql -p{}`",
    "bash -c 'mysql -p{}'", "bash -c \"env PASSWORD={} x\"", "echo {{}} && app --token {}",
    "wget --header=\"X-Api-Key: {}\" http://h", "curl -d '{{\"password\": \"{}\"}}' http://h",
    "mysql -p{}\\tdb", "don't --password {}", "curl http://u:{}@h/",
]  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("shell", [["sh", "-c"], ["/bin/bash", "-ec"], ["su", "-", "x", "-c"], ["exec"]])
def test_commands_in_one_text_lose_their_secrets(shell: list[str], script: str) -> None:
    """Taken apart as a shell would; also where nobody says that it is a command."""
    shown = Redactor().arguments([*shell, script.format(SECRET)])
    assert SECRET not in shown[-1]
    assert HIDDEN in shown[-1]
    assert shown[:-1] == shell


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("PGPASSWORD=x psql -h db", f"PGPASSWORD={HIDDEN} psql -h db"),
        ("foo --password 'a b' | tee /x", f"foo --password '{HIDDEN}' | tee /x"),
        ("curl -u me:pw http://h/; rm -rf /", f"curl -u me:{HIDDEN} http://h/; rm -rf /"),
        ("mysql -psecret < dump.sql", f"mysql -p{HIDDEN} < dump.sql"),
        ('curl -H "Authorization: Token x" http://h', f'curl -H "Authorization: {HIDDEN}" http://h'),
    ],
)
def test_the_rest_of_a_command_stays_as_it_is(script: str, shown: str) -> None:
    """The alert is about what it does."""
    assert Redactor().arguments(["sh", "-c", script])[-1] == shown


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "ABCDEFGHIJKLMNOP", "ghp_" + "a1" * 18, "xoxb-" + "1234567890-abc", "glpat-" + "x" * 20,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln", "-----BEGIN RSA PRIVATE KEY-----MIIE",
        "sk_live_" + "a1" * 12, "rk_test_" + "a1" * 12, "AIza" + "Sy" + "a1" * 17, "npm_" + "a1" * 18,
        "hvs." + "a1" * 20, "sk-ant-" + "a1" * 20, "SG." + "a" * 22 + "." + "b" * 43, "dckr_pat_" + "a1" * 14,
        "ya29." + "a1" * 20, "AGE-SECRET-KEY-1" + "QP" * 29,
    ],
)  # fmt: skip
def test_keys_of_known_forms_are_seen_anywhere(text: str) -> None:
    """In a path, too, and in an argument that says nothing of it."""
    assert text not in Redactor().text(f"/tmp/{text}")
    assert text not in " ".join(Redactor().arguments(["app", text]))


def test_every_form_is_hinted_at() -> None:
    """The quick look beforehand overlooks none: its words are in what the expressions ask for."""
    texts = ["Bearer abcdefgh1", "Basic QWxhZGRpbjpv", "a://u:p@h", "https://" + "t" * 20 + "@h", "?sig=abc",
             "hooks.slack.com/services/x", "discord.com/api/webhooks/1/x", "ASIA" + "A" * 16,
             "gho_" + "a" * 20, "github_pat_" + "a" * 20, "glpat-" + "a" * 20,
             "xapp-1-abcdefghij", "sk_test_" + "a" * 9,
             "whsec_" + "a" * 20, "AIza" + "a" * 35, "ya29." + "a" * 20, "npm_" + "a" * 36,
             "pypi-" + "a" * 60,
             "dckr_pat_" + "a" * 27, "sk-" + "a" * 40, "SG." + "a" * 22 + "." + "b" * 43, "hvb." + "a" * 24,
             "dop_v1_" + "a" * 64, "shpat_" + "a" * 32, "eyJaaaaaaaa.eyJaaaaaaaa.c",
             "-----BEGIN EC PRIVATE KEY-----", "AGE-SECRET-KEY-1" + "Q" * 58]  # fmt: skip
    assert all(HINT.search(text) for text in texts)
    assert all(any(form.search(text) for text in texts) for form in FORMS)


def test_addresses_of_hooks_are_secrets() -> None:
    """They allow posting; the host stays readable."""
    shown = Redactor().arguments(["curl", "https://hooks.slack.com/services/T0AB/B0CD/" + SECRET])[1]
    assert SECRET not in shown
    assert shown.startswith("https://hooks.slack.com/services/")


@pytest.mark.parametrize(
    "words",
    [
        ["passwd", "root"], ["cat", "/etc/passwd"], ["ls", "-p", "/run/secrets"],
        ["app", "--token-ttl", "30"], ["app", "--password-file", "/run/x"], ["app", "--password-stdin"],
        ["ssh", "-p", "22", "host"], ["mkdir", "-p", "/a/b"], ["python3", "token_bucket.py"],
        ["grep", "password", "file"], ["app", "--user", "me"], ["basic", "usage"],
        ["docker", "run", "-p", "80:80"],
        ["env", "PWD=/home/x", "OLDPWD=/", "BYPASS=1", "COMPASS=north"], ["curl", "http://h:8080/a@b"],
        ["kubectl", "get", "secret", "x", "-o", "yaml"], ["app", "--max-tokens", "100"], ["app", "KEY=value"],
        ["app", "--secret-name", "x"], ["docker", "run", "-v", "/etc/passwd:/mnt/passwd", "x"],
        ["git", "clone", "ssh://git@host:22/x"], ["sh", "-c", "cat /etc/shadow | grep root; id"],
        ["mysql", "-p", "db"], ["psql", "--no-password", "-h", "x"], ["app", "--use-token", "--verbose"],
        ["curl", "-H", "Accept: text/html", "-X", "POST"], ["app", "public_key=abc", "--tokenizer=x"],
        ["app", "TOKEN_URL=https://h/oauth", "AUTHOR=me"], ["app", "basic authentication is off"],
        ["openssl", "x509", "-in", "a.pem"], ["redis-cli", "-h", "h", "-p", "6379"],
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(words: list[str]) -> None:
    """An alert must remain readable."""
    assert Redactor().arguments(words) == words


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("PGPASSWORD", True), ("dbPassword", True), ("SECRET_KEY_BASE", True), ("AccountKey", True),
        ("aws_secret_access_key", True), ("--api-key", True), ("spring.datasource.password", True),
        ("storepass", True), ("X-Api-Key", True), ("CLIENT_SECRET", True), ("authToken", True), ("Pwd", True),
        ("PASSWORD_FILE", False), ("tokenizer", False), ("max_tokens", False), ("public_key", False),
        ("KEY", False), ("monkey", False), ("--no-password", False), ("SharedAccessKeyName", False),
        ("", False), ("---", False), ("PWD", False),
    ],
)  # fmt: skip
def test_names_are_read_as_people_write_them(name: str, secret: bool) -> None:
    """Underscores, dashes, dots, camelCase, and glued together."""
    assert is_secret(name) is secret


def test_a_record_keeps_what_says_whose_it_is() -> None:
    """Identity, rule and times are untouched; arguments, details and labels are searched."""
    record = alert(details={"text": "PASSWORD=" + SECRET, "api_key": SECRET, "list": ["token: " + SECRET],
                            "args": ["redis-cli", "-a", SECRET], "quoted": f"pass='{SECRET}' y"})  # fmt: skip
    record["process"]["args"] = ["app", "--token", SECRET]
    record["container"]["labels"] = {"password": SECRET}
    redactor = Redactor()
    clean = redactor.record(record)
    assert SECRET not in str(clean)
    assert {key: clean[key] for key in ("id", "rule", "time")} == {
        key: record[key] for key in ("id", "rule", "time")
    }
    assert clean["process"]["exe"] == record["process"]["exe"]
    assert clean["details"]["quoted"].endswith("' y")
    assert SECRET in str(record)  # the original is not touched
    assert redactor.redacted == 1
    assert redactor.record(alert()) == alert()
    assert redactor.redacted == 1


def test_patterns_of_ones_own() -> None:
    """A group hides what is in it, a pattern without groups hides all of its match."""
    redactor = Redactor([re.compile(r"card (\d+) of (\d+)"), re.compile(r"SSN-\d+")], defaults=False)
    assert redactor.text("card 12 of 34, SSN-99 PASSWORD=x") == (
        f"card {HIDDEN} of {HIDDEN}, {HIDDEN} PASSWORD=x"
    )
    assert redactor.arguments(["x", "--password", "y", "SSN-1"]) == ["x", "--password", "y", HIDDEN]


HOSTILE = [
    "a-" * 512, "a" * 1024, "a_token " * 128, "://" * 340, "eyJ" * 340, "pass=" * 200, "://u:" * 200,
    "'" * 1024, '"\\\\' * 340, "sh -c '" * 140, "password:" * 110, "&sig=" * 200, "Basic " * 170,
    "AIza" * 256, "{\"password\":" * 80, "\\\\" * 512, "--password " * 90,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_costs_little(text: str) -> None:
    """The texts are the container's: no pattern may run away with the loop.

    The best of three: one that runs away does it each time, the garbage collector comes when it likes.
    """
    redactor = Redactor()
    costs = []
    for _ in range(3):
        began = time.thread_time()
        redactor.text(text)
        redactor.arguments(["sh", "-c", text])
        redactor.arguments(text.split(" "))
        costs.append(time.thread_time() - began)
    assert min(costs) < 0.1


@given(st.lists(st.text(max_size=40), max_size=6))
def test_any_arguments_can_be_judged_fuzz(words: list[str]) -> None:
    """As they come from the kernel: as many words as there were, and nothing is raised."""
    shown = arguments("\0".join(words).encode("utf-8", "surrogatepass"))
    redactor = Redactor()
    assert len(redactor.arguments(shown)) == len(shown)
    redactor.text(" ".join(shown))


@given(st.text(alphabet="ab '\"\\;|&$(){}\t\n=-", max_size=60))
def test_words_of_a_command_stand_where_they_say_fuzz(text: str) -> None:
    """In order, without overlap, inside of the text; what stands between them is no word."""
    shown, at = escape(text), 0
    for command in commands(shown):
        for word in command:
            assert at <= word.begin < word.end <= len(shown)
            assert not re.search(r"[ab]", shown[at : word.begin]), "a letter that is in no word"
            at = word.end
    assert not re.search(r"[ab]", shown[at:])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 'b c' \"d e\"f", [["a", "b c", "d ef"]]),
        ("a;b && c|d", [["a"], ["b"], ["c"], ["d"]]),
        ("a\\\\ b 'c\\\\d'", [["a b", "c\\d"]]),
        ("a\\nb\\tc", [["a"], ["b", "c"]]),
        ("a 'never closed", [["a", "never closed"]]),
        ("", []),
    ],
)  # fmt: skip
def test_a_text_is_taken_apart_as_a_shell_would(text: str, words: list[list[str]]) -> None:
    """Quotes, backslashes (which stand twice in escaped text), separators, line ends."""
    assert [[word.text for word in command] for command in commands(text)] == words
