"""Step 4 of 6, inspect: the table's passwords, keys and tokens.

No check digit tells them, but prefixes that their issuers chose for this very purpose. The examples have the form of
real ones and open nothing; they are put together here so that no scanner of repositories takes them for real.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Final

from enforcer.masking import confirm, secrets
from enforcer.masking.rows import Confirm, Detector, everything, words_pattern

_BOUNDARY: Final = rb"(?:^|[^0-9A-Za-z_])"
_TAIL: Final = re.compile(rb"[A-Za-z0-9_-]*")
"""How most tokens go on. One of a fixed length gets a longer one beside it along: better than a part of it left."""


def _prefixed(*shapes: bytes) -> tuple[tuple[bytes, Confirm], ...]:
    """Tokens known by how they begin. A shape has a fixed length: what is longer is the tail's."""
    return tuple(
        (_BOUNDARY + shape, partial(secrets.token_of, re.compile(rb"(?<![0-9A-Za-z_])(?:" + shape + rb")\Z")))
        for shape in shapes
    )


_SIGN: Final = rb"[\"'\\]{0,2}[ \t]{0,3}(?:=>|:=|[:=,])[ \t]{0,3}[\"'\\]{0,2}"


def _assigned(words: Iterable[str], first: bytes, value: bytes) -> tuple[bytes, Confirm]:
    """What stands after one of `words` and a sign of assignment, in quotes or not."""
    return words_pattern(words) + _SIGN + first, partial(secrets.assigned, re.compile(value))


def _secret(
    name: str,
    source: str,
    candidates: tuple[tuple[bytes, Confirm], ...],
    examples: tuple[bytes, ...],
    counter_examples: tuple[bytes, ...],
    *,
    tail: re.Pattern[bytes] | None = _TAIL,
) -> Detector:
    reach = confirm.MAX_SPAN + 8
    return Detector(name, candidates, reach, everything, examples, counter_examples, ("secrets",), source, "", tail)


_SMALL: Final = b"abcdefghijklmnopqrstuvwxyz0123456789"
_MIXED: Final = b"aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hI5kL7nO9qR1tU3wX5zA7cD9fG1iJ3lM5oP7rS9uV1xY3"
_HEX: Final = b"0123456789abcdef" * 8
_BODY: Final = b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
_JOSE: Final = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

ROWS: Final = (
    _secret(
        "private_key",
        "RFC 7468, RFC 1421; detect-secrets Private Key",
        ((rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----", secrets.pem_key),),
        (
            b"-----BEGIN PRIVATE KEY-----<<\n" + _BODY + b">>-----END PRIVATE KEY-----",
            b"-----BEGIN RSA PRIVATE KEY-----<<\r\n" + _BODY + b"\r\n" + _BODY + b"\r\n>>-----END RSA PRIVATE KEY-----",
            b"-----BEGIN RSA PRIVATE KEY-----<<\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,6FB9\n\n"
            + _BODY
            + b">>,",
            b"-----BEGIN OPENSSH PRIVATE KEY-----<<\n" + _BODY + b">>,",
            rb"-----BEGIN EC PRIVATE KEY-----<<\n" + _BODY + b">>,",
        ),
        (
            b"-----BEGIN PRIVATE KEY-----",
            b"-----BEGIN PUBLIC KEY-----\n" + _BODY,
            b"-----BEGIN CERTIFICATE-----\n" + _BODY,
            b"a line that says -----BEGIN PRIVATE KEY----- and no more",
        ),
        tail=re.compile(rb"[A-Za-z0-9+/=\s\x00\\]*"),
    ),
    _secret(
        "jwt",
        "RFC 7515, RFC 7516; detect-secrets JSON Web Token",
        ((rb"(?:^|[^0-9A-Za-z])e[yw][A-Za-z0-9_-]{%d}" % (secrets.JOSE_HEAD - 2), secrets.jwt),),
        (
            # RFC 7515, appendix A.1, and RFC 7516, appendix A.1.
            b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
            b"cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03"
            b"JGe.48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6ji.XFBoMYUZodetZdvTiFvSkQ",
            _JOSE + b".e30.",
        ),
        (
            b"eyJpZCI6MTIzNDU2Nzg5MDEyfQ.abc",
            b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
            b"xeyJhbGciOiJIUzI1NiJ9.e30.abc",
            b"eyes.on.the.prize.and.more",
        ),
        tail=re.compile(rb"[A-Za-z0-9_.=-]*"),
    ),
    _secret(
        "aws_key",
        "AWS IAM unique identifiers; detect-secrets AWS Access Key",
        (
            *_prefixed(rb"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}"),
            _assigned(
                ("secret access key", "aws secret", "aws secret key", "secret key", "session token"),
                rb"[A-Za-z0-9/+]",
                rb"[A-Za-z0-9/+]{40}",
            ),
        ),
        (
            b"AKIAIOSFODNN7EXAMPLE",
            b"ASIAIOSFODNN7EXAMPLE",
            b"aws_secret_access_key = <<wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY>>",
            b'"SecretAccessKey": "<<wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY>>"',
        ),
        (b"AKIA", b"AKIAiosfodnn7example", b"xAKIAIOSFODNN7EXAMPLE", b"aws_secret_access_key = ${SECRET}"),
        tail=re.compile(rb"[A-Za-z0-9/+=]*"),
    ),
    _secret(
        "gcp_key",
        "Google Cloud API keys and OAuth; gitleaks and detect-secrets describe the prefixes",
        _prefixed(rb"AIza[0-9A-Za-z_-]{35}", rb"GOCSPX-[0-9A-Za-z_-]{28}", rb"ya29\.[0-9A-Za-z_-]{20}"),
        (b"AIza" + _MIXED[:35], b"GOCSPX-" + _MIXED[:28], b"ya29." + _MIXED),
        (b"AIza" + _MIXED[:34], b"AIza", b"ya29.short"),
    ),
    _secret(
        "azure_key",
        "Azure Storage connection strings, SAS and Entra client secrets; detect-secrets Azure Storage Key",
        (
            _assigned(("account key", "shared access key"), rb"[A-Za-z0-9/+]", rb"[A-Za-z0-9/+]{43}"),
            (
                rb"[?&;]sig=[A-Za-z0-9%/+]{40}",
                partial(secrets.token, 40),
            ),
            *_prefixed(rb"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31}"),
        ),
        (
            b"AccountKey=<<" + _MIXED[:76] + _MIXED[:10] + b"==>>",
            b"SharedAccessKey=<<" + _MIXED[:43] + b"=>>",
            b"?sv=1&sig=<<" + _MIXED[:43] + b"%3D>>",
            b"abc8Q~" + _MIXED[:34],
        ),
        (b"AccountKey=short", b"&sig=short", b"abc8Q~short"),
        tail=re.compile(rb"[A-Za-z0-9/+=%_~.-]*"),
    ),
    _secret(
        "github_token",
        "GitHub token formats; detect-secrets GitHub Token",
        _prefixed(rb"gh[pousr]_[A-Za-z0-9]{36}", rb"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{40}"),
        (b"ghp_" + _SMALL, b"gho_" + _SMALL, b"github_pat_" + _MIXED[:22] + b"_" + _MIXED[:59]),
        (b"ghp_" + _SMALL[:35], b"ghx_" + _SMALL, b"xghp_" + _SMALL),
    ),
    _secret(
        "gitlab_token",
        "GitLab token prefixes; detect-secrets GitLab Token",
        _prefixed(
            rb"gl(?:pat|dt|ft|soat|rt|cbt|ptt|agent|imt|oas|ffct)-[A-Za-z0-9_-]{20}", rb"GR1348941[A-Za-z0-9_-]{20}"
        ),
        (b"glpat-" + _MIXED[:20], b"gldt-" + _MIXED[:20], b"GR1348941" + _MIXED[:20]),
        (b"glpat-short", b"xglpat-" + _MIXED[:20]),
        tail=re.compile(rb"[A-Za-z0-9_.-]*"),
    ),
    _secret(
        "slack_token",
        "Slack token types; detect-secrets Slack",
        (
            *_prefixed(rb"xox[abeoprs]-[A-Za-z0-9-]{10}", rb"xapp-[0-9]-[A-Za-z0-9-]{10}"),
            (rb"hooks\.slack\.com/(?:services|workflows)/[A-Z0-9]{8}", partial(secrets.token, 8)),
        ),
        (
            b"xoxb-" + b"123456789012-1234567890123-" + _MIXED[:24],
            b"xapp-1-A" + b"0123456789-1234567890-" + _HEX[:64],
            b"https://hooks.slack.com/services/<<T" + b"00000000/B00000000/" + b"X" * 24 + b">>",
        ),
        (b"xoxb-", b"xoxo-hugs", b"hooks.slack.com/services/"),
        tail=re.compile(rb"[A-Za-z0-9_/-]*"),
    ),
    _secret(
        "stripe_key",
        "Stripe API keys; detect-secrets Stripe",
        _prefixed(rb"[srp]k_(?:live|test)_[0-9A-Za-z]{16}", rb"whsec_[0-9A-Za-z+/=]{24}"),
        (b"sk_live_" + _MIXED[:24], b"rk_test_" + _MIXED[:24], b"whsec_" + _MIXED[:32]),
        (b"sk_live_short", b"xsk_live_" + _MIXED[:24], b"task_test_0123456789abcdefghij"),
    ),
    _secret(
        "ai_key",
        "keys of OpenAI, Anthropic, Hugging Face, Groq, Replicate, xAI and Perplexity, as they document them",
        _prefixed(
            rb"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20}",
            rb"sk-ant-[a-z]{3,8}[0-9]{2}-[A-Za-z0-9_-]{20}",
            rb"sk-or-v1-[0-9a-f]{32}",
            rb"sk-[A-Za-z0-9]{32}",
            rb"hf_[A-Za-z0-9]{34}",
            rb"(?:gsk|xai)[_-][A-Za-z0-9]{40}",
            rb"r8_[A-Za-z0-9]{37}",
            rb"pplx-[A-Za-z0-9]{40}",
        ),
        (
            b"sk-proj-" + _MIXED,
            b"sk-ant-" + b"api03-" + _MIXED + b"AA",
            b"sk-" + _MIXED[:20] + b"T3BlbkFJ" + _MIXED[:20],
            b"hf_" + _MIXED[:34],
            b"gsk_" + _MIXED[:52],
        ),
        (b"sk-short", b"sk-learn-is-a-library-of-python", b"task-" + _MIXED[:32], b"hf_short"),
    ),
    _secret(
        "api_token",
        "tokens with a prefix of their own, as their issuers document them; detect-secrets has most of them",
        _prefixed(
            rb"npm_[A-Za-z0-9]{36}",
            rb"pypi-AgE[A-Za-z0-9_-]{40}",
            rb"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
            rb"(?:SK|AC)[0-9a-f]{32}",
            rb"key-[0-9a-f]{32}",
            rb"do[opr]_v1_[0-9a-f]{64}",
            rb"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}",
            rb"dapi[0-9a-f]{32}",
            rb"hv[sbr]\.[A-Za-z0-9_-]{24}",
            rb"sq0(?:atp|csp)-[A-Za-z0-9_-]{22}",
            rb"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",
            rb"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27}",
            rb"lin_api_[A-Za-z0-9]{40}",
            rb"ATATT3[A-Za-z0-9_=-]{60}",
            rb"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",
            rb"glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}",
            rb"EAACEdEose0cBA[0-9A-Za-z]{20}",
            rb"AGE-SECRET-KEY-1[0-9A-Z]{58}",
            rb"[0-9a-f]{32}-us[0-9]",
        ),
        (
            b"npm_" + _SMALL,
            b"pypi-AgE" + _MIXED,
            b"SG." + _MIXED[:22] + b"." + _MIXED[:43],
            b"dop_v1_" + _HEX[:64],
            b"shpat_" + _HEX[:32],
            b"hvs." + _MIXED[:24],
            b"110201543:AA" + _MIXED[:33],
            b"AGE-SECRET-KEY-1" + b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"[:58],
        ),
        (b"npm_short", b"SG.short.short", b"key-value", b"dapi", _HEX[:32], b"AC" + _HEX[:31]),
    ),
    _secret(
        "authorization",
        "RFC 9110, section 11.6.2; RFC 6750; RFC 7617",
        (
            (
                rb"[aA]uthorization[\"'\\]{0,2}[ \t]{0,2}[:=,][ \t]{0,2}[\"'\\]{0,2}"
                rb"(?:[bB]earer|[bB]asic|[tT]oken|[aA]pi[kK]ey|[dD]igest)[ +][A-Za-z0-9._~+/-]",
                partial(secrets.assigned, re.compile(rb"[A-Za-z0-9._~+/=-]{8}")),
            ),
        ),
        (
            b"Authorization: Bearer <<mF_9.B5f-4.1JqM>>",
            b"Authorization: Basic <<QWxhZGRpbjpvcGVuIHNlc2FtZQ==>>",
            b'"authorization": "Bearer <<mF_9.B5f-4.1JqM>>"',
        ),
        (b"Authorization: Bearer ", b"Authorization: none", b"Authorization: Bearer $TOKEN"),
        tail=re.compile(rb"[A-Za-z0-9._~+/=-]*"),
    ),
    _secret(
        "url_password",
        "RFC 3986, section 3.2.1; detect-secrets Basic Auth",
        (
            (
                rb"[A-Za-z0-9]://[^\s\x00:/@\"'<>]{0,64}:[^\s\x00/@\"'<>]",
                secrets.url_password,
            ),
        ),
        (
            b"https://user:<<pa55w0rd>>@intranet/",
            b"postgresql://app:<<s3cr3t!>>@db:5432/app",
            b"mongodb+srv://root:<<y7>>@cluster0",
            b"redis://:<<hunter2>>@cache",
            b"amqp://a:<<b%40c>>@queue",
        ),
        (
            b"https://example.org:8080/a@b",
            b"https://user@host",
            b"https://example.org:443",
            b"https://user:${PASSWORD}@host",
        ),
        tail=None,
    ),
    _secret(
        "password",
        "libpq, ODBC and ADO.NET connection strings; detect-secrets Secret Keyword",
        (
            (
                words_pattern(
                    (
                        *(
                            "password",
                            "passwd",
                            "pwd",
                            "passphrase",
                            "passwort",
                            "kennwort",
                            "mot de passe",
                            "pgpassword",
                        ),
                        *(
                            "client secret",
                            "api key",
                            "apikey",
                            "api secret",
                            "secret key",
                            "access token",
                            "auth token",
                        ),
                    )
                )
                + _SIGN
                + rb"[^\s\x00\"'`<>,;&|\\]",
                secrets.password,
            ),
        ),
        (
            b"Server=db;Password=<<Sw0rdfish!>>;",
            b"host=db user=app password=<<s3cr3t>>",
            b"PGPASSWORD=<<s3cr3t!>>",
            b"password: hunter2",
            b'"password": "<<correct horse battery staple>>"',
            b"client_secret=<<7f3a9c1e>>",
            b'"apiKey":"<<a1b2c3d4e5>>"',
        ),
        (
            b"password: required",
            b"password=None",
            b"password=${PASSWORD}",
            b"password=os.environ['X']",
            b"forgot your password?",
            b"password=********",
            b'"password": null',
            b"the password, please",
        ),
        tail=None,
    ),
)
