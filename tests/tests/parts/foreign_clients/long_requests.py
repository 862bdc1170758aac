MIB = 1024 * 1024

def pattern(number, length):
    return (bytes([number]) * 511 + b"|") * (length // 512 + 1)

def connect(structured):
    h = nbd.NBD()
    # It is not asked how long a request may be, and no check is made for us.
    h.set_request_block_size(False)
    h.set_request_structured_replies(structured)
    h.connect_uri(uri)
    h.set_strict_mode(0)
    return h

def fails(expected, call, *args):
    try:
        call(*args)
    except nbd.Error as error:
        assert error.errno == expected, "%s instead of %s" % (error.errno, expected)
        return
    raise AssertionError("%r was not refused" % (call,))

for structured in (True, False):
    h = connect(structured)
    size = h.get_size()
    lengths = (MIB, MIB + 4096, 3 * MIB + 4096, 32 * MIB)
    for n, length in enumerate(lengths, 1):
        data = pattern(n, length)[:length]
        for offset in (0, size - length):
            h.pwrite(data, offset, nbd.CMD_FLAG_FUA if n % 2 else 0)
            assert bytes(h.pread(length, offset)) == data, (structured, length, offset)
    last = bytes(h.pread(4096, size - 4096))
    # Past the end, longer than any, with another write in flight on each side.
    around = [nbd.Buffer.from_bytearray(bytearray([n]) * 65536) for n in (1, 2)]
    first = h.aio_pwrite(around[0], 0)
    fails("ENOSPC", h.pwrite, bytes(2 * MIB), size - 4096)
    fails("EINVAL", h.pwrite, bytes(32 * MIB + 4096), 0)
    fails("EINVAL", h.pread, 32 * MIB + 4096, 0)
    second = h.aio_pwrite(around[1], 65536)
    for cookie in (first, second):
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    assert bytes(h.pread(131072, 0)) == bytes([1]) * 65536 + bytes([2]) * 65536
    assert bytes(h.pread(4096, size - 4096)) == last
    # These have no data.
    h.zero(size, 0)
    h.trim(size, 0)
    assert bytes(h.pread(32 * MIB, size - 32 * MIB)) == bytes(32 * MIB)
    h.shutdown()
