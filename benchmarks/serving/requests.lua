-- Requests with the bodies of some files in turn: wrk -s requests.lua ADDRESS -- CONTENT_TYPE FILE ...
-- The last line of the output is JSON; a function `response` would cost the client what it is to measure.
local requests, turn = {}, 0

function init(words)
  for number = 2, #words do
    local file = assert(io.open(words[number], "rb"))
    requests[number - 1] = wrk.format("POST", nil, {["Content-Type"] = words[1]}, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '\n{"answers": %d, "seconds": %.6f, "p50": %.3f, "p99": %.3f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed
  ))
end
