// Holds the IDE in a frame of this origin, at the address of the tab.
const frame = document.createElement("iframe");
frame.allow = "clipboard-read; clipboard-write; fullscreen";
frame.title = document.title;
frame.src = location.href;
document.body.append(frame);
