h = nbd.NBD()
h.connect_uri(uri)
# The library would catch all of these by itself.
h.set_strict_mode(0)
size = h.get_size()

def fails(expected, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errno == expected, "%s instead of %s for %r" % (error.errno, expected, args)
        return
    raise AssertionError("%r was not refused" % (args,))

block = b"x" * 4096
for offset in (size, size - 2048, size + 4096, 2**63 - 4096):
    fails("EINVAL", h.pread, 4096, offset)
    fails("ENOSPC", h.pwrite, block, offset)
    fails("ENOSPC", h.zero, 4096, offset)
    fails("EINVAL", h.trim, 4096, offset)
# A flag that the command does not have.
fails("EINVAL", h.pwrite, block, 0, nbd.CMD_FLAG_DF)

# No length: done or refused, as the protocol leaves open, but the connection goes on.
for call, args in ((h.pread, (0, 0)), (h.pwrite, (b"", 0)), (h.zero, (0, 0)), (h.trim, (0, 0)), (h.cache, (0, 0))):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errno in ("EINVAL", "ENOSPC"), error.errno
assert len(h.pread(4096, size - 4096)) == 4096
h.shutdown()
