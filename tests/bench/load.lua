-- Sends a number of requests, no fewer and no more, made of a file's lines: paths, or bodies for POST /chats in which
-- @N@ becomes the number of the request, @C@ one of 256, and @S@ 0 or 1 in turn for each. Then it says so and waits.
local method, total, lines, built, given, taken, answered = "GET", 0, {}, {}, 0, 0, 0
local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  method, total = args[2], tonumber(args[3])
  for line in io.lines(args[1]) do table.insert(lines, line) end
  if method == "POST" then
    wrk.headers["Content-Type"] = "application/json"
  else
    for place, line in ipairs(lines) do built[place] = wrk.format(method, line) end
  end
end

function delay()
  if given == total then return 1000000 end
  given = given + 1
  return 0
end

function request()
  if taken < given then taken = taken + 1 end -- wrk looks at a request before it begins
  local place = (taken - 1) % #lines + 1
  if method ~= "POST" then return built[place] end
  local values = { N = string.format("%06d", taken), C = taken % 256, S = math.floor(taken / 256) % 2 }
  return wrk.format(method, "/chats", nil, (lines[place]:gsub("@(%u)@", values)))
end

local function finish()
  io.write("finished\n")
  io.flush()
  wrk.thread:stop()
end

function response(status, headers, body)
  answered = answered + 1
  if (status < 200 or status > 299) and not failure then
    failure = status .. " " .. body
    finish()
  elseif answered == total then
    finish()
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'result {"requests": %d, "seconds": %f, "failed": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
  local said = threads[1]:get("failure")
  if said then io.write("failure " .. said .. "\n") end
end
