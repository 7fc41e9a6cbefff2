-- POSTs one body per line of a file, each once, then stops.
-- args: file, token
local bodies, i, token = {}, 0, nil

function init(args)
    for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
    token = args[2]
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.headers["Authorization"] = "Bearer " .. token
end

function request()
    i = i + 1
    return wrk.format(nil, nil, nil, bodies[(i - 1) % #bodies + 1])
end

local answered = 0

function response()
    answered = answered + 1
    if answered >= #bodies then wrk.thread:stop() end
end
