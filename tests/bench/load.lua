-- Sends what a file holds, a line each: paths, or bodies for POST /chats in which @N@ becomes the number of the request
-- and @C@ that of a conversation that gets 20 messages. A finite list is sent once; then it says so and waits.
local method, finite, lines, built, number, given, taken, answered = "GET", false, {}, {}, 0, 0, 0, 0
local threads = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  method, finite = args[2], args[3] == "once"
  for line in io.lines(args[1]) do table.insert(lines, line) end
  if method == "POST" then
    wrk.headers["Content-Type"] = "application/json"
  else
    for place, line in ipairs(lines) do built[place] = wrk.format(method, line) end
  end
  if finite then
    function delay()
      if given == #lines then return 1000000 end
      given = given + 1
      return 0
    end
  end
end

function request()
  number = number + 1
  if method == "POST" then
    local conversation = math.floor(number / 5120) * 256 + number % 256
    local body = lines[(number - 1) % #lines + 1]:gsub("@(%u)@", { N = number, C = conversation })
    return wrk.format(method, "/chats", nil, body)
  elseif finite then
    if taken == given then return built[1] end -- wrk looks at one request before it begins
    taken = taken + 1
    return built[taken]
  end
  return built[(number - 1) % #built + 1]
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
  elseif finite and answered == #lines then
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
