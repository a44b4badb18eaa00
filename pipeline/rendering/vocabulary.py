"""The names that everything published uses: CSV, JSON, exports, views and schemas.

One table: by record, what each field means. The unit follows from the name: what ends in ``_us``
is microseconds, what ends in ``_at`` a time in UTC (so are ``since``, ``until`` and
``not_before``), ``share`` and what ends in ``_share`` goes from 0 to 1. Text, Markdown and HTML
derive their heads from the same names. Below the table are the lines of fields (see
``records.py``) of the records that several answers hold.
"""

from collections.abc import Mapping

EVERY_RECORD: Mapping[str, str] = {
    "run_id": "the run; unique in the store",
    "batch": "the batch, unique in its run: w0, w1, ...",
    "batch_number": "its place in the run, from 0",
    "fetch": "the fetch, unique in its run: the number of the first batch that it serves",
    "attempt_id": "the attempt, unique in the store: what `pipeline audit show` takes",
    "attempt_number": "which try of its fetch it is, from 1",
    "source": "the source, by its name in the configuration",
    "is_sandbox": "whether the sandbox played the source, or one of the run's; null: at times",
    "schedule": "the schedule, by its key",
    "started_at": "when the run started",
    "began_at": "when the attempt's turn came; of a trend, when the hour or day began",
    "n": "how many numbers were wanted",
    "min": "the smallest number that was allowed",
    "max": "the largest number that was allowed",
    "runs": "how many runs",
    "batches": "how many batches",
    "attempts": "how many attempts: requests sent, retries included, and those not let go",
    "numbers": "how many numbers were collected",
    "sum": "of the numbers, exact",
    "error": "what went wrong, by its published name",
    "phase": "where it went wrong, or what took the time",
    "whose": "whose fault it is: path, upstream, policy, contract or ours",
    "detail": "more about the error, one line",
    "not_before": "the earliest moment at which it may be asked for",
    "why": "what it has to wait for",
    "retries": "attempts after the first of their fetch",
    "failed_attempts": "attempts that brought no numbers",
    "ordered": "batches that were wanted",
    "collected": "batches that came",
    "failed": "batches that were lost",
    "deferred": "batches put off, because the upstream's rules forbid to ask in time",
    "cancelled": "batches given up because the run was stopped",
    "exchange_us": "attempts added up, without their waits for permission",
    "clock_offset_us": "how far this machine's clock was ahead of the upstreams', by Date",
    "first_at": "when it was first seen",
    "last_at": "when it was last seen",
    "first_attempt_id": "the first attempt that shows it",
    "last_attempt_id": "the newest attempt that shows it",
    "p50_us": "half of them took this at most",
    "p90_us": "nine of ten took this at most",
    "p99_us": "99 of 100 took this at most",
    "since": "from this moment on",
    "until": "up to, but without, this moment",
    "host": "the machine",
}
VOCABULARY: Mapping[str, Mapping[str, str]] = {
    "every record": EVERY_RECORD,
    "run": {
        "uid": "32 hex digits that no other run has, on any machine",
        "pid": "its process",
        "version": "of pipeline",
        "config_digest": "hash of the settings",
        "config_path": "the file with the settings",
        "ended_at": "when it ended",
        "status": "what became of it: ok, partial, failed, skipped, interrupted; or running",
        "clock_us": "how long it took by the clock",
        "is_alive": "whether its process is still there; null unless it is running here",
    },
    "batch": {
        "verdict": "what became of it: collected, failed, deferred or cancelled",
        "offset": "where its numbers begin in the answer to its fetch",
        "digest": "SHA-256 over n, min, max and the numbers, in hex",
        "took_us": "all attempts of its fetch, added up",
        "host": "the machine of the worker whose attempt decided it; null: the run asked by itself",
        "pid": "the worker's process there",
        "values": "the numbers themselves",
        "value": "one of its numbers",
        "position": "where the number stands in the batch, from 0",
    },
    "attempt": {
        "is_reused": "whether an open connection carried it",
        "host": "the machine of the worker that asked; null: the run asked by itself",
        "pid": "the worker's process there",
        "http_status": "of the answer",
        "body_bytes": "how many bytes of the body were read",
        "retry_after_us": "how long the upstream asked us to wait",
        "evidence": "hash of the answer, if it was kept",
        "wait_us": "for permission, or before a retry",
        "dns_us": "looking the host name up",
        "connect_us": "opening the connection",
        "tls_us": "the TLS handshake",
        "send_us": "sending the request",
        "first_byte_us": "until the answer began",
        "body_us": "until the answer was there",
        "check_us": "reading and checking the numbers",
    },
    "tally": {
        "retries_helped": "retries that brought the numbers",
        "fastest_us": "the shortest exchange that brought numbers",
        "fastest_attempt_id": "the attempt with the shortest exchange",
        "first_sent_at": "when the first request was let go",
        "last_sent_at": "when the last request was let go",
        "rule": "the rate in force, as 1/60s",
        "violations": "requests that broke a rule",
        "violating_attempt_id": "the first attempt that broke a rule",
        "wait_us": "waits for permission, added up",
    },
    "error": {
        "share": "of all attempts at the source",
        "hosts": "of one run: the machines of the workers whose attempts failed so",
    },
    "range of numbers": {
        "mean": "of the numbers",
        "expected_mean": "of a fair source, whose numbers are equally likely",
        "z": "how many standard errors the mean is off",
    },
    "health": {
        "numbers": "how many were tested since the first of them",
        "first_at": "when the first run started that brought any",
        "last_at": "when the newest run started that brought any",
        "block_size": "how many numbers make a block",
        "pending": "numbers that came since the last block was full",
        "blocks": "how many blocks were tested in this time",
        "full_entropy": "of a number of a fair source, in bits",
        "min_entropy": "of a number by the most common of each block, in bits",
        "min_entropy_bound": "what that is at least, with a confidence of 99 %",
        "warnings": "how often the same number came too often: chance, once in 2^30",
        "criticals": "how often the same number came far too often: chance, once in 2^60",
        "false_alarm_years": "in so many years chance gives one warning, at this pace",
        "verdict": "critical, suspicious, nothing found, too few to tell, or nothing to test",
    },
    "test of blocks": {
        "test": "chi_square, monobit, frequency, runs or serial",
        "blocks": "how many blocks it was made of",
        "odd": "those of them with a p-value below 0.01",
        "expected": "how many of them chance makes odd, in the long run",
        "chance": "how likely chance makes so many odd, or more",
        "severity": "warning, critical, or null: chance explains it",
    },
    "health alarm": {
        "test": "repetition or proportion",
        "severity": "warning or critical",
        "value": "the number that came most often",
        "times": "how often it came, in a row or in a window",
        "cut_off": "how often is too often",
        "alarms": "in how many places of this run",
        "batch": "the batch in which it was first",
        "position": "of the first one among all numbers of the range, from 1",
    },
    "block of numbers": {
        "block": "its place among those of its range, from 0",
        "run_id": "the run that brought the last of its numbers",
        "n": "how many numbers it has",
        "most": "how often its most common number came",
        "chi_square": "p-value: whether each number came as often as the others",
        "monobit": "p-value: whether there are as many ones as zeros; null: not whole bits",
        "frequency": "p-value: the same in each 128 bits; null: not whole bits",
        "runs": "p-value: whether ones and zeros alternate as they should; null: not whole bits",
        "serial": "p-value: whether a number tells anything of the next",
    },
    "source": {
        "share": "of the batches ordered, those that were collected",
        "success_share": "of the attempts, those that brought numbers",
        "last_good_at": "when the newest run started that got a batch from it",
        "last_bad_at": "when the newest run started that lost a batch or an attempt",
        "embargo_until": "until when it must not be asked",
        "embargo_why": "in whose words",
    },
    "timing": {
        "max_us": "the longest",
        "total_us": "all of them added up",
        "share": "of the time of all attempts at the source",
    },
    "slot": {
        "due_at": "when its run was due",
        "fate": "what became of it: ran, late, skipped, missed or interrupted",
        "claimed_at": "when a process took it",
        "late_us": "how long after it was due its run started",
    },
    "worker": {
        "member_id": "the worker, unique in the store",
        "pid": "its process on that machine",
        "version": "of the program",
        "lanes": "how many portions it carries out at once",
        "portions": "how many it has in hand",
        "since": "when it came",
        "seen_at": "when it was heard last",
        "is_alive": "whether that was lately",
    },
    "portion": {
        "first_batch_number": "where it begins in its run",
        "last_batch_number": "where it ends",
        "undecided": "how many of its batches have no outcome yet",
        "host": "the machine that has it, or had it last",
        "pid": "the process there",
        "began_at": "when that began it",
        "why": "what it waits for, and who left it to others for what reason; empty: it is in hand",
    },
    "day": {
        "day": "in UTC",
        "last_due_at": "of a gap, all of whose slots were missed: the last of them",
        "slots": "1, or those of a gap",
        "ran": "slots that ran in time",
        "late": "slots that ran late",
        "skipped": "slots skipped because the run before was still going on",
        "missed": "slots that nobody ran",
        "interrupted": "slots whose run was interrupted",
        "running": "slots whose run is going on",
        "latest_start_us": "by how much the latest run started late",
    },
    "finding": {
        "kind": "what it is about",
        "severity": "info, warning or critical",
        "sources": "whom it concerns",
        "reason": "one line",
        "attempt_ids": "some of the attempts that show it, the first and the last among them",
        "figures": "what it was judged by",
    },
    "late attempts": {
        "host": "the machine that made them",
        "pid": "the process of its worker there; null: it was the run's own",
        "attempts": "how many came when the run had ended; no part of its sums",
        "collected": "batches that they would have brought",
        "first_at": "when the first of them came",
        "last_at": "when the last of them came",
        "file": "where they had been set aside; null: their worker brought them itself",
    },
    "availability": {
        "observations": "runs that found it up or down",
        "interval_us": "the usual gap between them",
        "up_us": "how long it was up",
        "down_us": "how long it was down",
        "unknown_us": "how long nobody knows",
        "available_share": "of the time that is known, when it was up",
        "unknown_share": "of the whole time",
        "outages": "stretches of time in which it was down",
        "recoveries": "outages whose end was seen",
        "mean_recovery_us": "from down to up, on average",
        "longest_recovery_us": "from down to up, the longest",
    },
    "planned fetch": {
        "batch_names": "the batches that it serves",
        "planned_at": "the earliest moment at which it may go",
        "is_deferred": "whether that is after the deadline of the run",
    },
    "quota": {
        "unit": "of amount and left: requests or bits",
        "period": "day or month, in UTC",
        "amount": "allowed in a period",
        "left": "of the amount, in this period",
    },
    "configured source": {
        "kind": "of the upstream, as in the configuration",
        "is_enabled": "whether runs ask it",
    },
    "schedule": {
        "expression": "in the dialect of cron",
        "timezone": "in which the expression is meant",
        "next": "the coming slots",
        "last": "the slots that were",
    },
    "request or answer": {
        "method": "of HTTP",
        "url": "with the names of secrets in their places",
        "headers": "names and values, in order",
        "body": "the first bytes, secrets replaced",
    },
    "contract": {
        "aspect": "what of the answers is meant",
        "value": "what it looked like",
    },
    "replayed answers": {
        "change": "whether they would be judged otherwise today",
        "then": "the error at that time",
        "now": "the error today",
        "not_judged": "why nobody can tell",
        "answers": "how many different answers",
        "redacted": "how many of the answers had something secret taken out",
    },
    "state of a source": {
        "state": "of the newest run: ok, partial, failed, deferred; or not asked yet",
        "last_good_at": "when the newest run of a week started that got a batch from it",
        "collected": "batches that came in the newest run",
        "ordered": "batches that were wanted in the newest run",
    },
    "source now": {
        "state": "asking, waiting, probe next or ready",
        "quotas": "what is left of its allowances",
        "recent": "what went wrong in its last attempts, the newest last; null: nothing",
        "collected": "batches that came, in the runs that go on",
        "open": "batches without a verdict, in the runs that go on",
        "ordered": "batches that were wanted, in the runs that go on",
        "p50_us": "of the exchanges of the last hour",
        "p90_us": "of the exchanges of the last hour",
    },
    "state of a schedule": {
        "next_at": "when the next slot is due",
        "last_due_at": "when the newest slot on record was due",
        "fate": "what became of that slot; null: its run goes on, or there is none",
        "is_overdue": "whether a later slot should have been started by now",
    },
    "figure": {
        "measure": "what is counted",
        "now": "as it was",
        "certain": "as it would have been, if that is certain",
        "at_best": "the least that it would have been",
        "at_worst": "the most that it would have been",
        "estimate": "between the two; null: too few attempts, or nothing to estimate from",
        "n": "how many attempts the estimate is made from",
        "method": "how the estimate is made",
    },
    "change": {
        "limit": "the one that is changed, as the configuration names it",
        "value": "what it is changed to",
    },
    "unknown": {
        "reason": "what no attempt on record can tell",
        "requests": "of how many requests",
    },
    "check": {
        "topic": "what was looked at",
        "is_ok": "whether a run can go well so",
        "says": "what was found; if it is not ok, what to do",
    },
    "problem": {
        "text": "one line",
        "position": "of the seal in the chain",
    },
    "proof": {
        "word": "how far it was verified when it came",
        "scheme": "how it is signed",
        "key_id": "which key signed it, as its source names it",
        "serial": "the round, pulse or serial number",
        "made_at": "when it was made, by its own word",
        "is_expanded": "whether each batch drew its numbers out of one public value",
        "message": "what was signed, in hex",
        "signature": "in hex",
    },
    "proof counts": {
        "verified": "collected batches whose signature verifies",
        "chained": "whose hashes and links verify, and whose signature does not",
        "not_verifiable": "signed, and not verifiable on this machine",
        "unsigned": "without a proof",
    },
    "seal": {
        "position": "its place in the chain",
        "chain": "hash over all seals so far",
    },
    "verified before": {
        "position": "of the head up to which nothing was read again",
        "chain": "hash over all seals up to there",
        "batches": "how many were verified up to there",
        "verified_at": "when they were verified last",
        "all_verified_at": "when everything was read last",
    },
    "table": {
        "name": "in the database",
        "rows": "how many",
        "bytes": "how many, its indexes included",
    },
}

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
