-- Sends BENCH_BODY to BENCH_PATH, @DATE@ in it replaced by 1,200 dates in turn, or by one with BENCH_SAME.
-- Writes what was measured to BENCH_RESULT as JSON.
local requests = {}
local turn = 0

function init()
  local headers = { ["Content-Type"] = os.getenv("BENCH_TYPE"), ["Accept"] = os.getenv("BENCH_ACCEPT") }
  local body, path = os.getenv("BENCH_BODY"), os.getenv("BENCH_PATH")
  for month = 0, os.getenv("BENCH_SAME") and 0 or 1199 do
    local date = string.format("%d-%02d-01", 1900 + math.floor(month / 12), month % 12 + 1)
    requests[#requests + 1] = wrk.format("POST", path, headers, (body:gsub("@DATE@", date)))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local file = assert(io.open(os.getenv("BENCH_RESULT"), "w"))
  file:write(string.format(
    '{"requests":%d,"us":%d,"bytes":%d,"failed":%d,"p50":%d,"p99":%d}',
    summary.requests, summary.duration, summary.bytes,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
  file:close()
end
