h = nbd.NBD()
h.connect_uri(uri)
assert h.get_structured_replies_negotiated()
KIB, MIB = 1024, 1024 * 1024

def chunks(count, offset, flags=0):
    got = []
    def chunk(data, at, status, error):
        assert error.value == 0
        got.append((at, len(data), status))
    whole = h.pread_structured(count, offset, chunk, flags)
    got.sort()
    at = offset
    for start, length, status in got:
        assert start == at, "chunks leave no gap and do not overlap: %r" % got
        at += length
    assert at == offset + count
    return bytes(whole), got

# Across hole, data and hole again.
whole, _ = chunks(MIB, 512 * KIB)
with_df, pieces = chunks(MIB, 512 * KIB, nbd.CMD_FLAG_DF)
assert len(pieces) == 1, pieces
assert whole == with_df
assert whole[:512 * KIB] == bytes(512 * KIB)
assert whole[512 * KIB:576 * KIB].count(0) < 1024
assert whole[576 * KIB:] == bytes(448 * KIB)
# Not aligned to anything.
assert chunks(1000, MIB - 500)[0] == whole[512 * KIB - 500:512 * KIB + 500]
h.cache(MIB, 0)
h.shutdown()

# The same data without structured replies.
plain = nbd.NBD()
plain.set_request_structured_replies(False)
plain.connect_uri(uri)
assert not plain.get_structured_replies_negotiated()
assert bytes(plain.pread(MIB, 512 * KIB)) == whole
plain.shutdown()
