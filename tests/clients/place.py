"""Two places with the servers that clients meet: nginx with TLS and HTTP/2, git behind it, package indexes, objects.

Each name has a tree of its own below `sites/NAME`: what is served is made here, and nothing comes from elsewhere. What
a server was asked is in its log, by which the tests judge.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, Site, World
from enforcer.tls.authority import Authority
from tests.clients import goods, objects
from tests.clients.long_streams import CLEAR_PORT, RAW_PORT
from tests.fixtures.world import CARD, EMAIL, NOBODY_SILENT, enforcing
from tests.system import name_server

# Allowed and unread; allowed and masked; in a region that no rule allows.
PLAIN, MASKED, DENIED = "plain.de.example", "masked.de.example", "plain.us.example"
ORDER = {"order": 17, "card": CARD, "contact": EMAIL}
HOSTS = {PLAIN: FRANKFURT, MASKED: FRANKFURT, DENIED: VIRGINIA}
RULES = f"""
    policy: clients
    rules:
      - name: raw
        to: {{region: [DE], port: ["{RAW_PORT}"], protocol: [opaque]}}
        action: allow
      - name: databases
        to: {{region: [DE], port: ["3306", "5432"], protocol: [postgres, mysql]}}
        action: allow
        only: {{operation: [read]}}
        mask: {{response: [{{column: "customers.card"}}, {{column: "customers.digits"}}]}}
      - name: masked
        to: {{region: [DE], host: [{MASKED}], protocol: [http]}}
        action: allow
        mask: {{response: [credit_card, email]}}
      - name: germany
        to: {{region: [DE], protocol: [http]}}
        action: allow
      - name: nowhere-else
        to: {{region: ["*"], protocol: [http]}}
        action: deny
"""
OBJECTS_PORT = 9100
# Debian's nginx with modules of its own choice; what is not set here would be below /var.
NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log error.log; user root;
events {{ worker_connections 1024; }}
http {{
  include /etc/nginx/mime.types;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path u; scgi_temp_path s;
  log_format asked '$scheme $host $request_method $request_uri $status $server_protocol';
  access_log asked.log asked;
  client_max_body_size 0;
  gzip on; gzip_types application/json text/plain; gzip_min_length 20;
  server {{
    listen {address}:80; listen [{address6}]:80; listen {address}:443 ssl http2; listen [{address6}]:443 ssl http2;
    ssl_certificate server.pem; ssl_certificate_key server.pem;
    root sites/$host;
    location /simple/ {{ index index.html; }}
    location ~ ^/npm/.*[.]tgz$ {{ types {{ }} default_type application/octet-stream; }}
    location /npm/ {{ default_type application/json; try_files $uri $uri/index.json =404; }}
    location /objects/ {{
      proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $host; proxy_http_version 1.1;
    }}
    location /long/ {{
      proxy_pass http://{address}:{long}/; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
    }}
    location /git/ {{
      fastcgi_pass unix:{directory}/cgi.sock; include /etc/nginx/fastcgi_params; fastcgi_request_buffering off;
      fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
      fastcgi_param GIT_PROJECT_ROOT {directory}/sites/$host/git; fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param REMOTE_USER someone; fastcgi_param HOME {directory};
      fastcgi_split_path_info ^(/git)(/.*)$; fastcgi_param PATH_INFO $fastcgi_path_info;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The world with the enforcer in it. `public`: the authority that the servers' certificates are signed by."""

    world: World
    instance: Instance
    public: Authority

    def asked(self, site: Site) -> list[str]:
        """The requests that the site's nginx has answered: scheme, host, method, target, status, version."""
        return (self.world.directory / site.name / "asked.log").read_text().splitlines()

    def tree(self, name: str) -> Path:
        return self.world.directory / HOSTS[name].name / "sites" / name


@contextmanager
def built() -> Iterator[Place]:
    with World(FRANKFURT, VIRGINIA) as world:
        directory = world.directory / "public"
        public = Authority.create(directory)
        for site in world.sites:
            _serve(world, site, public)
        _serve_names(world)
        settings = {"trust": [str(directory / "ca.pem")]}
        resolver = {"upstreams": [{"address": FRANKFURT.address}]}
        with enforcing(
            world, "clients", files={"clients": RULES}, tls=settings, resolver=resolver, **NOBODY_SILENT
        ) as instance:
            yield Place(world, instance, public)


def _serve(world: World, site: Site, public: Authority) -> None:
    directory = world.directory / site.name
    for name in (name for name, where in HOSTS.items() if where is site):
        goods.make(directory / "sites" / name, name)
        tree = directory / "sites" / name
        (tree / "bucket").mkdir()
        for place in (tree, tree / "bucket"):
            (place / "order.json").write_text(json.dumps(ORDER))
        suffix = name.partition(".")[2]
    (directory / "server.pem").write_text(public.leaf(f"*.{suffix}").pem)
    values = {"directory": directory, "address": site.address, "address6": site.address6}
    values |= {"port": OBJECTS_PORT, "long": CLEAR_PORT}
    (directory / "nginx.conf").write_text(NGINX.format(**values))
    gateway = ("fcgiwrap", "-s", f"unix:{directory}/cgi.sock")
    world.spawn(site.name, *gateway, log=f"cgi-{site.name}.log")
    world.spawn(site.name, "nginx", "-p", str(directory), "-c", "nginx.conf", log=f"nginx-{site.name}.log")
    store = (sys.executable, objects.__file__, str(OBJECTS_PORT), str(directory / "sites"))
    world.spawn(site.name, *store, log=f"objects-{site.name}.log")
    world.wait_for(site, 443)


def _serve_names(world: World) -> None:
    zone, questions = world.directory / "zone", world.directory / "questions"
    zone.write_text("\n".join(f"{name}. A {site.address}" for name, site in HOSTS.items()))
    questions.touch()
    command = (sys.executable, name_server.__file__, FRANKFURT.address, str(zone), str(questions))
    world.spawn(FRANKFURT.name, *command, log="names.log")
    world.wait_for(FRANKFURT, 53)


def git(*arguments: str, directory: Path) -> str:
    """git on the far side, or beside the enforcer."""
    command = ["git", "-C", str(directory), "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
