"""Step 4 of 6, inspect: settings of a session that are nobody else's business.

They change neither what names mean, nor how later statements are read, nor what one may do. What PostgreSQL's
standard_conforming_strings and client_encoding change is seen by whoever carries the statements, or makes no difference
to how they are read here.
"""

from __future__ import annotations

import re
from typing import Final

_HARMLESS: Final = frozenset(
    """application_name datestyle intervalstyle timezone time bytea_output extra_float_digits client_min_messages
    statement_timeout lock_timeout transaction_timeout idle_in_transaction_session_timeout idle_session_timeout
    transaction transaction_isolation transaction_deferrable transaction_read_only default_transaction_isolation
    default_transaction_deferrable default_transaction_read_only characteristics constraints random_page_cost work_mem
    enable_seqscan enable_indexscan enable_bitmapscan enable_hashjoin enable_mergejoin enable_nestloop jit geqo
    plan_cache_mode synchronize_seqscans lc_messages lc_monetary lc_numeric lc_time xmloption check_function_bodies
    row_security quote_all_identifiers client_encoding standard_conforming_strings default_tablespace
    default_table_access_method restrict_nonsystem_relation_kind
    autocommit names time_zone net_write_timeout net_read_timeout wait_timeout
    interactive_timeout sql_quote_show_create max_execution_time max_statement_time group_concat_max_len tx_isolation
    tx_read_only optimizer_switch sql_auto_is_null sql_safe_updates sql_select_limit sql_big_selects profiling
    lock_wait_timeout innodb_lock_wait_timeout lc_time_names collation_connection character_set_results
    foreign_key_checks unique_checks sql_notes sql_warnings timestamp insert_id""".split()  # noqa: SIM905
)

_MODES: Final = re.compile(r"'([A-Za-z_,]*)'")
# Under which quotes mean something else. Those with a server's name are several in one.
_READ_OTHERWISE: Final = frozenset(
    "ANSI ANSI_QUOTES NO_BACKSLASH_ESCAPES DB2 MAXDB MSSQL ORACLE POSTGRESQL".split()  # noqa: SIM905
)


def is_harmless(name: str, value: str) -> bool:
    """`name` in lower case; `value` as it is written, a literal with its quotes."""
    if name == "search_path":
        return value == "''"  # then names mean nothing but what they say
    if name == "sql_mode":
        modes = _MODES.fullmatch(value)
        # `'s'` stands for any literal that has more than words.
        return modes is not None and modes[1] != "s" and _READ_OTHERWISE.isdisjoint(modes[1].upper().split(","))
    return name in _HARMLESS
