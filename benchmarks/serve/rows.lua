-- Requests of ROWS rows to POST /predict, of which a share BAD breaks the contract.
local rows, bad = tonumber(os.getenv("ROWS") or "1"), tonumber(os.getenv("BAD") or "0")
math.randomseed(1)
local bodies = {}
for b = 1, 50 do
  local own = {}
  for i = 1, rows do
    local age = 18 + (b * 31 + i * 7) % 60
    if math.random() < bad then age = 300 end
    own[i] = string.format('{"age": %d, "income": %.2f, "score": %.3f}', age, 1000.5 * ((b + i) % 90), (b * i % 1000) / 1000)
  end
  bodies[b] = '{"instances": [' .. table.concat(own, ", ") .. "]}"
end
local at = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  at = at % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[at])
end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "refused": %d, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), e.status,
    e.connect + e.read + e.write + e.timeout))
end
