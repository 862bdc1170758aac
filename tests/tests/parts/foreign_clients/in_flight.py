h = nbd.NBD()
h.connect_uri(uri)
LENGTH = 128 * 1024

def finish(cookies):
    while cookies:
        cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]
        if cookies:
            h.poll(-1)

def pattern(number):
    return bytes([number + 1]) * LENGTH

written = [nbd.Buffer.from_bytearray(bytearray(pattern(n))) for n in range(32)]
finish([h.aio_pwrite(buffer, n * 2 * LENGTH) for n, buffer in enumerate(written)])
read = [nbd.Buffer(LENGTH) for _ in range(32)]
finish([h.aio_pread(buffer, n * 2 * LENGTH) for n, buffer in enumerate(read)])
for n, buffer in enumerate(read):
    assert bytes(buffer.to_bytearray()) == pattern(n), "block %d" % n

# Reads, writes, zeroes and flushes all at once, on places of their own.
cookies = [h.aio_zero(LENGTH, n * 2 * LENGTH) for n in range(8)]
cookies += [h.aio_pwrite(written[n], (n * 2 + 1) * LENGTH, flags=nbd.CMD_FLAG_FUA) for n in range(8, 16)]
cookies += [h.aio_pread(read[n], n * 2 * LENGTH) for n in range(16, 24)]
cookies += [h.aio_flush() for _ in range(8)]
finish(cookies)
for n in range(8):
    assert bytes(h.pread(LENGTH, n * 2 * LENGTH)) == bytes(LENGTH)
    assert bytes(h.pread(LENGTH, (n + 8) * 2 * LENGTH + LENGTH)) == pattern(n + 8)
    assert bytes(read[n + 16].to_bytearray()) == pattern(n + 16)
h.shutdown()
