h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(uri)
assert h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
MIB = 1024 * 1024
HOLE = nbd.STATE_HOLE | nbd.STATE_ZERO

def status(count, offset, flags=0):
    got = []
    def extent(context, at, entries, error):
        assert context == "base:allocation" and at == offset
        got.extend(zip(entries[0::2], entries[1::2]))
    h.block_status(count, offset, extent, flags)
    return got

def clip(entries, count):
    # The last entry may reach beyond what was asked.
    total = sum(length for length, _ in entries)
    assert total >= count
    length, flags = entries[-1]
    return entries[:-1] + [(length - (total - count), flags)]

assert clip(status(8 * MIB, 0), 8 * MIB) == [(2 * MIB, HOLE), (MIB, 0), (5 * MIB, HOLE)]
assert status(8 * MIB, 0, nbd.CMD_FLAG_REQ_ONE) == [(2 * MIB, HOLE)]
one = status(MIB, 2 * MIB, nbd.CMD_FLAG_REQ_ONE)
assert one == [(MIB, 0)], one
h.shutdown()

# Without the context the request is an error, and the connection lives on.
h = nbd.NBD()
h.connect_uri(uri)
h.set_strict_mode(0)
try:
    h.block_status(MIB, 0, lambda *args: 0)
    raise AssertionError("block status without its context was answered")
except nbd.Error as error:
    assert error.errnum == errno.EINVAL or error.errno == "EINVAL" or error.errno == "ENOTSUP", error.errno
h.pread(512, 0)
h.shutdown()
