-- For wrk: sends the prepared requests of a file, each once. Arguments: the file, and how many requests it holds.
-- Each record of the file is eight digits, the length of the request, and the request as it goes over the wire.
-- With ONCE set in the environment the connections rest when everything is sent; else the file must not run out.

local file, total, ahead, threads = nil, 0, nil, {}
local asked, reserved = 0, 0
sent = 0

local function read()
  local size = file:read(8)
  return size and file:read(tonumber(size))
end

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  file = assert(io.open(args[1], "rb"))
  total = tonumber(args[2])
  ahead = assert(read(), "the file holds no request")
end

function request()
  asked = asked + 1
  if asked == 1 then return ahead end -- wrk looks at the first one and does not send it
  local now = ahead
  sent = sent + 1
  if sent < total then ahead = read() end
  return now
end

if os.getenv("ONCE") then
  function delay() -- called before each request: milliseconds to wait
    reserved = reserved + 1
    return reserved <= total and 0 or 3600000
  end
end

function done(summary, latency)
  local errors, all = summary.errors, 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("sent")
  end
  io.write(string.format(
    '{"answered": %d, "seconds": %.6f, "refused": %d, "broken": %d, "late": %d, "sent": %d, ' ..
    '"p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write,
    errors.timeout, all, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
