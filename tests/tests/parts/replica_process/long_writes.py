MIB = 1024 * 1024
handles = []
for _ in range(3):
    h = nbd.NBD()
    h.set_request_block_size(False)
    h.connect_uri(uri)
    handles.append(h)
cookies = []
# Each overlaps the one before it, from another connection.
for n in range(12):
    h = handles[n % 3]
    length = (1 + n % 4) * MIB + n * 512 + n % 2
    data = nbd.Buffer.from_bytearray(bytearray([n + 1]) * length)
    flags = nbd.CMD_FLAG_FUA if n % 3 == 0 else 0
    cookies.append((h, h.aio_pwrite(data, n * MIB + n * 512, flags=flags)))
for h, cookie in cookies:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
h = handles[0]
h.pwrite(bytes([99]) * (8 * MIB), 32 * MIB, nbd.CMD_FLAG_FUA)
h.trim(3 * MIB, 20 * MIB)
for h in handles:
    h.shutdown()
