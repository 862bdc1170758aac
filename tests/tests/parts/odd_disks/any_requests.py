import random
random.seed(41)
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(uri)
size = h.get_size()
smallest = h.get_block_size(nbd.SIZE_MINIMUM)
model = bytearray(h.pread(size, 0))

def place():
    grain = max(random.choice((1, 512, 4096)), smallest)
    offset = random.randrange(0, size // grain) * grain
    length = min(random.randrange(1, 40) * grain, size - offset)
    if random.random() < 0.1:
        offset = max(offset, (size - length) // smallest * smallest)
        length = size - offset
    return offset, length // smallest * smallest

for n in range(240):
    offset, length = place()
    if length == 0:
        continue
    end = offset + length
    flags = random.choice((0, 0, 0, nbd.CMD_FLAG_FUA))
    kind = random.randrange(5)
    if kind == 0:
        data = bytes([random.randrange(1, 256)]) * length
        h.pwrite(data, offset, flags)
        model[offset:end] = data
    elif kind == 1:
        h.zero(length, offset, flags)
        model[offset:end] = bytes(length)
    elif kind == 2:
        h.zero(length, offset, flags | nbd.CMD_FLAG_NO_HOLE)
        model[offset:end] = bytes(length)
    elif kind == 3:
        h.trim(length, offset, flags)
        found = h.pread(length, offset)
        # Advice: each byte is gone, or what it was.
        assert all(new == 0 or new == old for new, old in zip(found, model[offset:end])), (n, offset, length)
        model[offset:end] = found
    else:
        assert h.pread(length, offset) == model[offset:end], (n, offset, length)
for offset in range(0, size, 65536):
    length = min(65536, size - offset)
    assert h.pread(length, offset) == model[offset:offset + length], offset
h.flush()
h.shutdown()
