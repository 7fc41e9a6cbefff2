-- POSTs one body per line of a file, each once, then makes a marker file.
-- (wrk sleeps its whole duration whatever a thread does, so that the caller
-- watches for the marker.)  args: file, token, marker
local bodies, i, marker = {}, 0, nil

function init(args)
    for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
    marker = args[3]
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.headers["Authorization"] = "Bearer " .. args[2]
end

function request()
    i = i + 1
    return wrk.format(nil, nil, nil, bodies[(i - 1) % #bodies + 1])
end

local answered = 0

function response()
    answered = answered + 1
    if answered == #bodies and marker then
        io.open(marker, "w"):close()
        wrk.thread:stop()
    end
end
