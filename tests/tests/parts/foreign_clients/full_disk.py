h = nbd.NBD()
h.connect_uri(uri)
MIB = 1024 * 1024
block = b"\xa5" * (256 * 1024)
offset = 0
try:
    while offset < 64 * MIB:
        h.pwrite(block, offset)
        offset += len(block)
    raise AssertionError("64 MiB fitted on 8")
except nbd.Error as error:
    assert error.errno == "ENOSPC", error.errno
assert offset >= 4 * MIB, offset
# What was written is there, and the same connection goes on.
assert bytes(h.pread(len(block), 0)) == block
h.trim(2 * MIB, 0)
assert bytes(h.pread(len(block), 0)) == bytes(len(block))
h.pwrite(block, offset)
assert bytes(h.pread(len(block), offset)) == block
h.flush()
h.shutdown()
