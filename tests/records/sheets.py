"""The forward passes of records 50, 61 and 89, written down a second time, from their sheets alone.

Everything is fp32. `p` holds a record's parameters and tables by name, `s` its settings; ids (T,), ends of documents in
tokens but the last, windows (long, short) in tokens. Each function returns what the head sees, before its norm.
"""

import math

import torch

LAYERS = range(11)
ATTENTION_LAYERS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]


def norm(x):
    return x / (x.square().mean(-1, keepdim=True) + 1.19e-7).sqrt()


def smeared(e, gate, strength):
    """Each token's embedding with a gated share of the one before it."""
    return torch.cat([e[:1], e[1:] + strength * torch.sigmoid(e[1:, :12] @ gate.T) * e[:-1]])


def attended(query, key, value, streams, slots, ends, window, scale):
    """Each head of each token over all that it may see: what is in its stream, in its document, at its slot or up to
    `window` before it. Streams and slots (tokens, heads), ends of documents in slots."""
    shape = query.shape
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    stream, slot = streams.flatten(), slots.flatten()
    document = (slot[:, None] >= torch.tensor(ends)).sum(1)
    distance = slot[:, None] - slot
    seen = (stream[:, None] == stream) & (document[:, None] == document) & (distance >= 0) & (distance <= window)
    scores = (scale * query @ key.T).masked_fill(~seen, -math.inf)
    return (scores.softmax(-1) @ value).view(shape)


def apart(tokens, heads, ends):
    """Streams, slots and ends where each head is for itself."""
    return torch.arange(heads).expand(tokens, heads), torch.arange(tokens)[:, None].expand(tokens, heads), ends


def paired(tokens, heads, ends):
    """The same where heads j and j + heads/2 share a stream: the first at an even slot, the second at the next one."""
    slots = 2 * torch.arange(tokens)[:, None] + torch.arange(heads) // (heads // 2)
    return (torch.arange(heads) % (heads // 2)).expand(tokens, heads), slots, [2 * end for end in ends]


def turned(x, where, base):
    """Channels 2i and 2i + 1 of the first half as complex numbers, turned back by where (tokens, heads) they are."""
    frequencies = (1 / base) ** torch.linspace(0, 1, x.size(-1) // 4)
    angle = where[..., None] * frequencies
    even, odd = x[..., 0 : x.size(-1) // 2 : 2], x[..., 1 : x.size(-1) // 2 : 2]
    pairs = torch.stack([even * angle.cos() + odd * angle.sin(), odd * angle.cos() - even * angle.sin()], dim=-1)
    return torch.cat([pairs.flatten(-2), x[..., x.size(-1) // 2 :]], dim=-1)


def positions(tokens, heads, in_pairs):
    """By what a head is turned: its token; in pairs, twice that, and one more for odd heads."""
    token = torch.arange(tokens)[:, None].expand(tokens, heads)
    return 2 * token + torch.arange(heads) % 2 if in_pairs else token


def shifted(key, channels):
    """These channels of a key are those of the key before."""
    moved = key.clone()
    moved[1:, :, channels] = key[:-1, :, channels]
    return moved


def forward_50(p, s, ids, ends, windows):
    """Sheet 50, 4.2 to 4.5."""
    tokens, quarter, a = len(ids), s.head_dim // 4, p["scalars"]
    x = x0 = norm(smeared(p["embedding"][ids], p["smear_gate"], a[44]))
    frequencies = torch.cat([(1 / s.rotary_base) ** torch.linspace(0, 1, quarter), torch.zeros(quarter)])
    angle = (torch.arange(tokens)[:, None] * frequencies)[:, None]

    def rotated(y):
        first, second = y[..., : 2 * quarter], y[..., 2 * quarter :]
        halves = first * angle.cos() + second * angle.sin(), -first * angle.sin() + second * angle.cos()
        return torch.cat(halves, dim=-1)

    tables, streams = {0: 1, 1: 2, 8: 0, 9: 1, 10: 2}, {}
    for i in LAYERS:
        if i == 6:
            x = x + torch.sigmoid(a[46]) * streams[3]
        x = (a[0] + a[11]) * x if i == 0 else a[i] * x + a[11 + i] * x0
        if i != 6:
            h = norm(x)
            q, k, v, o = p[f"blocks.{i}.attention.qkvo"].chunk(4)
            q, k, v = ((h @ w.T).view(tokens, s.num_heads, s.head_dim) for w in (q, k, a[22 + 2 * i] * v))
            q, k = rotated(norm(q)), rotated(norm(k))
            if i in (3, 10):
                k = shifted(k, [*range(quarter, 2 * quarter), *range(3 * quarter, 4 * quarter)])
            if i in tables:
                v = v + p[f"value_tables.{tables[i]}"][ids].view(v.shape)
            places = apart(tokens, s.num_heads, ends)
            y = attended(q, k, v, *places, windows[0 if i in (3, 10) else 1], s.attention_scale)
            y = y * torch.sigmoid(h[:, :12] @ p[f"blocks.{i}.attention.gate"].T).unsqueeze(-1)
            x = x + y.flatten(1) @ (a[23 + 2 * i] * o).T
        up, down = p[f"blocks.{i}.mlp.up"], p[f"blocks.{i}.mlp.down"]
        x = streams[i] = x + torch.relu(norm(x) @ up.T).square() @ down
    return x - a[45] * streams[7]


def forward_61(p, s, ids, ends, windows):
    """Sheet 61, 4.2 to 4.6."""
    tokens, quarter, a = len(ids), s.head_dim // 4, p["scalars"]
    x = x0 = norm(smeared(p["embedding"][ids], p["smear_gate"], a[33]))
    tables, streams = {0: (1, 0), 1: (2, 1), 8: (0, 2), 9: (1, 3), 10: (2, 4)}, {}
    for i in LAYERS:
        if i == 6:
            gate = 2 * torch.sigmoid(x0[:, :12] @ p["skip_gate"].T)
            x = x + torch.sigmoid(a[35]) * gate * streams[3]
        m = p["embedding_mix"][i]
        x = (a[0] + m) * x if i == 0 else a[i] * x + m * x0
        if i != 6:
            h, row, in_pairs = norm(x), ATTENTION_LAYERS.index(i), i in (0, 2, 5, 9)
            q, k, v, o = p["attention_bank"][row]
            q, k, v = ((h @ w.T).view(tokens, s.num_heads, s.head_dim) for w in (q, k, a[11 + 2 * i] * v))
            where = positions(tokens, s.num_heads, in_pairs)
            q, k = (turned(norm(y), where, s.rotary_base) for y in (q, k))
            if i in (3, 10):
                k = shifted(k, [*range(quarter, 2 * quarter), *range(3 * quarter, 4 * quarter)])
            if i in tables:
                table, gate = tables[i]
                gate = 2 * torch.sigmoid(h[:, :12] @ p["value_gates"][gate].T)
                v = v + gate.unsqueeze(-1) * p[f"value_tables.{table}"][ids].view(v.shape)
            places = (paired if in_pairs else apart)(tokens, s.num_heads, ends)
            y = attended(q, k, v, *places, windows[0 if i in (3, 10) else 1], s.attention_scale)
            y = y * torch.sigmoid(h[:, :12] @ p["attention_gates"][row].T).unsqueeze(-1)
            x = x + y.flatten(1) @ (a[12 + 2 * i] * o).T
        up, down = p["mlp_bank"][i]
        x = streams[i] = x + torch.relu(norm(x) @ up.T).square() @ down
    return x - a[34] * streams[7]


def generated(p, kind, block, x):
    """What a gate block or a mixing block makes of x, before its scale. GELU by its definition."""
    hidden = x @ p[f"{kind}_first"][block].T
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ p[f"{kind}_second"][block].T + p[f"{kind}_bias"][block]


def composed(q, k, v, first, second, ends, keys, scale):
    """Sheet 89, 4.10: what the dynamic heads add."""
    first = first / (first.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    rows = []
    for t in range(len(q)):
        start = max(t - keys + 1, max(end for end in [0, *ends] if end <= t))
        scores = scale * torch.einsum("hd,jhd->hj", q[t], k[start : t + 1])
        shared = first[t] @ scores.softmax(-1)
        rows.append(second[t][:, None] * torch.einsum("j,jhd->hd", shared, v[start : t + 1]))
    return torch.stack(rows)


def forward_89(p, s, ids, ends, windows):
    """Sheet 89, 4.2 to 4.8 (bf16's products) and 4.10, for 6 heads."""
    tokens, a = len(ids), p["scalars"]
    values = p["value_tables"].view(5, s.vocab_size, -1)[:, ids]
    pairs = torch.cat([torch.zeros(1, dtype=ids.dtype), (ids[:-1] ^ ids[1:]) % s.sign_rows])
    b = p["bigram_table"][p["bigrams"]] * p["signs"][pairs]
    n = norm(smeared(p["embedding"][ids], p["smear_gate"], a[22]))
    psi = p["gate_scale"] * generated(p, "gate", 0, n)
    strengths, gates = {1: psi[:, :6], 3: psi[:, 6:12]}, {3: psi[:, 12:18]}
    alpha = {i: psi[:, 18 + 2 * i, None] for i in range(4)}
    beta = {i: psi[:, 19 + 2 * i, None] for i in range(4)}
    x = x0 = n + beta[0] * b
    r, results, streams, table = p["residual_scales"], p["output_scales"], {}, {1: 0, 2: 1, 8: 2, 9: 3, 10: 4}

    def attention(i, h, added, dynamic=None):
        row, in_pairs = ATTENTION_LAYERS.index(i), i in (0, 2, 5, 9)
        q, k = p["query_key_bank"][6 * row : 6 * row + 6].flatten(0, 1).chunk(2)
        v, o = p["value_output_bank"][2 * row : 2 * row + 2]
        q, k, v = ((h @ (a[2 * i] * w).T).view(tokens, 6, s.head_dim) for w in (q, k, v))
        q, k = (turned(norm(y), positions(tokens, 6, in_pairs), s.rotary_base) for y in (q, k))
        if i in (3, 10):
            k = shifted(k, [*range(s.head_dim // 2, s.head_dim)])
        v = v if added is None else v + added
        places = (paired if in_pairs else apart)(tokens, 6, ends)
        y = attended(q, k, v, *places, windows[0 if i in (3, 10) else 1], s.attention_scale)
        if dynamic:
            y = y + composed(q, k, v, *dynamic, ends, s.dynamic_keys, s.attention_scale)
        if i in (1, 3, 4, 7):
            share = (y * v).sum(-1, keepdim=True) / (v * v).sum(-1, keepdim=True).clamp(min=1e-8)
            y = y - torch.tanh(strengths[i]).unsqueeze(-1) * share * v
        if i in (3, 10):
            y = gates[i].unsqueeze(-1) * y
        return y.flatten(1) @ (a[2 * i + 1] * o).T

    def feed_forward(i, h):
        up, down = p["mlp_bank"][i]
        return torch.relu(h @ up.T).square() @ down

    for i in range(10):
        if i == 4:
            psi = p["gate_scale"] * generated(p, "gate", 1, x)
            strengths |= {4: psi[:, :6], 7: psi[:, 6:12]}
            gates[10] = psi[:, 12:18]
            for j, later in enumerate((4, 5, 7, 8, 9)):
                alpha[later], beta[later] = psi[:, 18 + 2 * j, None], psi[:, 19 + 2 * j, None]
            skip, dynamic = psi[:, 28, None], (psi[:, 29:35], psi[:, 35:41])
        if i == 6:
            x = x + torch.sigmoid(a[23]) * skip * streams[3]
        else:
            h, added = norm(streams[7] if i >= 8 else x), None
            if i in table:
                row = values[table[i]]
                gate = 2 * torch.sigmoid(torch.cat([h[:, :6], row[:, :6]], -1) @ p["value_gates"][table[i]].T)
                added = gate.unsqueeze(-1) * row.view(tokens, 6, s.head_dim)
            x = r[i, 0] * x + results[i, 0] * attention(i, h, added) + alpha[i] * n
            x = x + beta[i] * b if i >= 1 else x
        x = streams[i] = r[i, 1] * x + results[i, 1] * feed_forward(i, norm(x))

    s9, s7 = x, streams[7]
    phi = (0.1 * generated(p, "mixing", 0, s9)).unsqueeze(-1)
    gate = torch.cat([phi[:, 6].expand(-1, 3), phi[:, 7].expand(-1, 3)], -1).unsqueeze(-1)
    added = gate * values[4].view(tokens, 6, s.head_dim)
    added = added + (phi[:, 0] * x0 + phi[:, 1] * s7 + phi[:, 2] * s9).view(tokens, 6, s.head_dim)
    x = (1 + phi[:, 5]) * s9 + phi[:, 3] * x0 + phi[:, 4] * s7
    x = phi[:, 8] * x + phi[:, 9] * attention(10, norm(s7), added, dynamic) + phi[:, 10] * x0 + phi[:, 11] * b
    x = phi[:, 12] * x + phi[:, 13] * feed_forward(10, norm(x))
    k = (0.1 * generated(p, "mixing", 1, x)).unsqueeze(-1)
    return x + k[:, 0] * x0 + k[:, 1] * s7 + k[:, 2] * s9 + k[:, 3] * values[0] + k[:, 4] * streams[3]


FORWARDS = {"50": forward_50, "61": forward_61, "89": forward_89}
