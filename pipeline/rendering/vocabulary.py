"""The names that everything published uses: CSV, JSON, exports, views and schemas.

``meanings`` says what each stands for. Below are the lines of fields (see ``records.py``) of the
records that several answers hold.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

EVERY_RECORD = "every record"  # has fields of these names, or may have

RUN = (
    "run_id=id uid host pid version config_digest config_path is_sandbox started_at ended_at status"
    " clock_us ordered collected failed deferred cancelled numbers attempts exchange_us=waited_us"
    " clock_offset_us"
)
BATCH = (
    "run_id batch=name batch_number=number source is_sandbox n min max verdict fetch"
    " attempt_number=attempt offset sum digest=digest_hex error detail not_before"
)
ATTEMPT = (
    "attempt_id=id run_id fetch=attempt.fetch attempt_number=attempt.number source=attempt.source"
    " began_at=attempt.began_at is_reused=attempt.is_reused http_status=attempt.status"
    " body_bytes=attempt.body_bytes error=attempt.error phase=attempt.phase detail=attempt.detail"
    " retry_after_us=attempt.retry_after_us wait_us=attempt.timings.wait_us"
    " dns_us=attempt.timings.dns_us connect_us=attempt.timings.connect_us"
    " tls_us=attempt.timings.tls_us send_us=attempt.timings.send_us"
    " first_byte_us=attempt.timings.first_byte_us body_us=attempt.timings.body_us"
    " check_us=attempt.timings.check_us evidence host pid"
)
TALLY = (
    "started_at run_id source is_sandbox min max collected failed deferred cancelled numbers sum"
    " attempts failed_attempts retries retries_helped wait_us exchange_us fastest_us"
    " fastest_attempt_id=fastest_attempt first_sent_at last_sent_at rule violations"
    " violating_attempt_id=violating_attempt"
)
LATE = "run_id source host pid attempts collected first_at last_at file"
FINDING = "kind severity sources since until reason whose batches attempt_ids=attempts figures"
LOSS = "source error phase whose attempts batches first_at last_at last_attempt_id=last_attempt"
ANSWER = "http_status=status headers body body_bytes"
SPAN = (
    "source aspect value first_at last_at first_attempt_id=first_attempt"
    " last_attempt_id=last_attempt"
)
AVAILABILITY = (
    "source is_sandbox observations interval_us up_us down_us unknown_us available_share=share"
    " unknown_share outages recoveries mean_recovery_us longest_recovery_us"
)


@cache
def meanings() -> Mapping[str, Mapping[str, str]]:
    """Read what each field means, by the record that has it."""
    return tomllib.loads(Path(__file__).with_name("meanings.toml").read_text("utf-8"))
