"""What messages cost, as ratios and counts: no absolute time is asserted."""

from time import process_time_ns

import pytest

from symbi.bus.codec import Opened, Signing
from symbi.testing.bus import Correspondence


class Watched:
    """A provider that counts what it is asked for."""

    def __init__(self, provider):
        self.provider = provider
        self.counts = {"sign": 0, "verify": 0, "aead": 0, "hkdf": 0, "agreement": 0}

    def __getattr__(self, name):
        return getattr(self.provider, name)

    def _counted(self, what, call):
        def counted(*given, **named):
            self.counts[what] += 1
            return call(*given, **named)

        return counted

    def signer(self, seed):
        signer = self.provider.signer(seed)
        return type(signer)(signer.public, self._counted("sign", signer.sign))

    def verifier(self, public):
        return self._counted("verify", self.provider.verifier(public))

    def aead(self, key):
        self.counts["aead"] += 1
        return self.provider.aead(key)

    def hkdf_sha256(self, secret, **named):
        self.counts["hkdf"] += 1
        return self.provider.hkdf_sha256(secret, **named)


@pytest.fixture
def watched(monkeypatch):
    made = []
    real = Correspondence.__init__.__globals__["open_provider"]

    def watch(name):
        made.append(Watched(real(name)))
        return made[-1]

    monkeypatch.setitem(Correspondence.__init__.__globals__, "open_provider", watch)
    return made


@pytest.mark.parametrize(
    ("signing", "batch", "signatures"), [(Signing.BATCH, 256, 4), (Signing.BATCH, 64, 16), (Signing.MESSAGE, 256, 1000)]
)
def test_keys_are_derived_once_and_a_batch_is_signed_and_verified_once(watched, signing, batch, signatures):
    letters = Correspondence(signing=signing, batch=batch)
    wires = letters.writer.seal_many([letters.message(bytes(256)) for _ in range(1000)])
    assert all(isinstance(one, Opened) for one in letters.reader.open_many(wires, "ben"))
    counts = watched[0].counts
    assert counts["sign"] == counts["verify"] == signatures
    assert counts["aead"] == counts["hkdf"] == 2  # one who seals and one who opens


def test_forgeries_cost_no_keys(watched):
    letters = Correspondence()
    wire = letters.writer.seal(letters.message())
    before = dict(watched[0].counts)
    letters.reader.open_many([wire[:30] + bytes([number]) + wire[31:] for number in range(256)], "ben")
    assert watched[0].counts["hkdf"] - before["hkdf"] == 1  # that of the one among them that is true
    assert len(letters.reader._opening) == 1


def rate_of(signing, count):
    letters = Correspondence(signing=signing)
    best = None
    for _ in range(5):
        messages = [letters.message(bytes(256)) for _ in range(count)]
        begun = process_time_ns()
        opened = letters.reader.open_many(letters.writer.seal_many(messages), "ben")
        elapsed = (process_time_ns() - begun) / count
        best = elapsed if best is None else min(best, elapsed)
        assert all(isinstance(one, Opened) for one in opened)
    return best


def test_batches_cost_a_fraction_of_single_signatures():
    assert rate_of(Signing.BATCH, 512) * 4 < rate_of(Signing.MESSAGE, 64)


def test_many_cost_each_no_more_than_few():
    assert rate_of(Signing.BATCH, 4096) < 5 * rate_of(Signing.BATCH, 256)  # sixteen times if it were quadratic
