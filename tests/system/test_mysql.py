"""MySQL from an executor to a real MariaDB in Frankfurt, through the running enforcer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from enforcer.tls.authority import Authority
from tests.databases.mysql_server import DATABASE, PASSWORD, USER, running_mariadb
from tests.fixtures.world import MASKED_CARD, Shell, Watch, enforcing, eventually, session_list

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

PORT = 3306
POLICY = """
    policy: shop
    rules:
      - name: databases
        to: {region: [DE], protocol: [mysql]}
        action: allow
        only: {operation: [read]}
        mask: {response: [credit_card, {column: "customers.ssn"}]}
      - name: web
        to: {region: [DE], protocol: [http]}
        action: allow
      - name: nowhere-else
        to: {region: ["*"]}
        action: deny
"""
SESSION = """
    import pymysql
    def said(statement):
        try:
            with db.cursor() as cursor:
                cursor.execute(statement)
                return [list(map(str, row)) for row in cursor.fetchall()]
        except pymysql.Error as error:
            return list(error.args)
    db = pymysql.connect(host=host, user=user, password=password, database=database, read_timeout=30, ssl=ssl)
    answer = [said(statement) for statement in statements]
    db.close()
"""


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    public = Authority.create(world.directory / "mysql-public")
    trust = world.directory / "mysql-trust.pem"
    trust.write_text(public.certificate)

    def within(*command: str) -> list[str]:
        return world.command(FRANKFURT.name, *command)

    pem = public.leaf(FRANKFURT.address).pem
    with (
        running_mariadb(world.directory, pem=pem, address=FRANKFURT.address, port=PORT, within=within),
        enforcing(world, "shop", files={"shop": POLICY}, tls={"trust": [str(trust)]}) as enforcer,
    ):
        yield enforcer


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        yield running


def talk(shell: Shell, statements: list[str], *, tls: bool = False) -> list[list[object]]:
    ssl = {"ca": "/etc/ssl/certs/ca-certificates.crt", "check_hostname": True} if tls else None
    values = {"host": FRANKFURT.address, "user": USER, "password": PASSWORD, "database": DATABASE, "ssl": ssl}
    said: list[list[object]] = shell.run(SESSION, statements=statements, **values)
    return said


@pytest.mark.parametrize("tls", [False, True], ids=["in clear", "TLS"])
def test_statements_are_judged_one_by_one_and_results_masked(instance: Instance, shell: Shell, tls: bool) -> None:
    """What is allowed comes back masked by detector and by column; what is not is refused in MySQL's words, and the
    connection lives on."""
    statements = [
        "SELECT name, card, ssn FROM customers WHERE id = 1",
        "DELETE FROM customers",
        "SELECT COUNT(*) FROM customers",
        "SHOW STATUS LIKE 'Ssl_cipher'",
    ]
    rows, refused, after, cipher = talk(shell, statements, tls=tls)
    assert rows[0][:2] == ["Ada", MASKED_CARD]
    assert "078-05" not in str(rows)
    assert refused[0] == 1142
    assert "rule shop/databases allows only some requests" in str(refused[1])
    assert after == [["2"]]
    assert bool(cipher[0][1]) is tls
    (session, *_) = [one for one in session_list(instance) if one["protocol"] == "mysql"]
    assert (session["region"], session["rule"]) == ("DE", "databases")


def test_a_region_that_is_not_allowed_hears_nothing(instance: Instance, shell: Shell, virginia: Watch) -> None:
    """The client reads who refused it where it waits for a greeting; nothing arrives in Virginia."""
    code = """
        import pymysql
        try:
            pymysql.connect(host=host, user="u", password="p", connect_timeout=30)
        except pymysql.Error as error:
            answer = list(error.args)
    """
    number, words = shell.run(code, host=VIRGINIA.address)
    assert number == 1045
    assert "rule shop/nowhere-else forbids region US" in words
    assert virginia.arrived() == []
    denied = eventually(lambda: [one for one in session_list(instance) if one["action"] == "deny"], "its record")
    assert denied[0]["protocol"] == "mysql"
